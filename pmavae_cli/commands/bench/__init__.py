"""`pmavae bench`."""
