"""Distances between millions of vectors, computed in tiles on all devices and decided exactly."""
