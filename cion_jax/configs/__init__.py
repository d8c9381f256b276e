"""Settings of all stages, and the configs that the package itself uses."""
