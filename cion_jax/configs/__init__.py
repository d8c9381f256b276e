"""The settings of every stage, and the configurations that the package itself uses."""
