"""`pmavae export`."""
