"""The stages of the Beam pipeline, one file each."""
