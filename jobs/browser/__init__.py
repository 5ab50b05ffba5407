"""The pages of `bertloom browse`."""
