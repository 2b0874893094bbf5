"""`pmavae info`."""
