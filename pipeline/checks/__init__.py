"""A finished data set looked at: is it whole, what is in it, where did an example come from?"""
