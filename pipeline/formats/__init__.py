"""What people have to documents: readers of every kind of file, and the records that they give."""
