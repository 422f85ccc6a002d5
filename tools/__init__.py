"""What keeps the repository in order: run by make, never by the app or the library."""
