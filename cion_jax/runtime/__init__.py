"""Infrastructure shared by all stages: atomic file writes, progress bars, checkpoints, device meshes."""
