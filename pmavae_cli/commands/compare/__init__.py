"""`pmavae compare`."""
