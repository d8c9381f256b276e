"""Where images are kept: folders, packed stores and LMDBs."""
