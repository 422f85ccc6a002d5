"""Every attack that the app and the library are to withstand, each made by a test that says what answers it."""
