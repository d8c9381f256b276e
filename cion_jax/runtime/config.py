"""The type of a configuration."""

from typing import Any

# A locked `ml_collections.ConfigDict` from configs/. Its fields are known at run time only, so type checkers are
# told nothing; a wrong name fails when it is read, with the nearest right one.
Config = Any
