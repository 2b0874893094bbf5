"""`pmavae weights`."""
