"""The command line: one file a group of commands, imported only when one of them is called."""
