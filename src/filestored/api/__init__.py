"""What the program speaks: HTTP."""
