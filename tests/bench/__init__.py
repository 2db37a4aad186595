"""That the benches run, and that their models keep laws."""
