"""Work split over independent calls of one command with `--shard=i/n`, for example in a Slurm job array."""

import re
from typing import NamedTuple, Self


class Shard(NamedTuple):
    """Shard `index` (from 0) of `count` shards of some work."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses "i/n", such as "3/16"; raises `ValueError` unless i and n are integers with 0 <= i < n."""
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or int(match[1]) >= int(match[2]):
            raise ValueError(f"shard {text!r}: expected i/n with i from 0 to n - 1, such as 0/16 for the first of 16")
        return cls(int(match[1]), int(match[2]))

    def part(self, items: int) -> range:
        """Returns this shard's contiguous range of `items` items; the sizes of all shards differ by at most one."""
        return range(items * self.index // self.count, items * (self.index + 1) // self.count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


WHOLE = Shard(0, 1)
