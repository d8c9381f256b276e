"""What every stage stands on: files that are whole or absent, progress, checkpoints, device meshes."""
