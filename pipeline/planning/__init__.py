"""What a job over texts will make, estimated from a sample before it runs. The commands import this package."""
