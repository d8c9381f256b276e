"""Infrastructure shared by all stages: atomic files, progress, checkpoints, device meshes."""
