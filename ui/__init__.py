"""What the app's pages are made of: HTML from results, a style sheet and a script."""
