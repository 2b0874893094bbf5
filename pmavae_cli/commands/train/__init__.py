"""`pmavae train`."""
