"""Configurations: lab notes that run. `base.py` explains every setting; the others say what they change."""
