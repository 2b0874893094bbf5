"""What a network can be trained for, a file each."""
