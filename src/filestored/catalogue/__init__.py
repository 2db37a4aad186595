"""Who keeps which blob, under what name and until when."""
