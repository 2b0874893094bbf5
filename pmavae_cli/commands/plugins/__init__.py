"""`pmavae plugins`."""
