"""Work divided over independent calls of one command: `--shard=i/n`, as a SLURM array makes them."""

import re
from typing import NamedTuple, Self


class Shard(NamedTuple):
    """The `index`-th, from 0, of `count` calls that share some work."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads "i/n", such as "3/16"; `ValueError` for anything else and for an i that is not in 0 to n - 1."""
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or int(match[1]) >= int(match[2]):
            raise ValueError(f"shard {text!r}: expected i/n with i from 0 to n - 1, such as 0/16 for the first of 16")
        return cls(int(match[1]), int(match[2]))

    def part(self, items: int) -> range:
        """This call's share of `items` items: contiguous, its size within one of every other call's."""
        return range(items * self.index // self.count, items * (self.index + 1) // self.count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


WHOLE = Shard(0, 1)
