"""What lies in deploy/, run and compared with the program."""
