"""What only the embedded runner needs."""
