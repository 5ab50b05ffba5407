"""Checks of a finished data set: is it intact, what is in it, and how was an example made?"""
