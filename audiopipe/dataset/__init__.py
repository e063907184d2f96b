"""Write, commit, read and verify a dataset."""
