"""Image stores: folders, packed stores and LMDBs."""
