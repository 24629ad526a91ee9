"""Parts of a list of runs, for the tasks of a job array."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import TypeVar

from jaxcryo.errors import InputError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One of several parts of a list that together are all of it, none twice."""

    index: int
    """From 1."""
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that `3/20` means.

        Raises:
            InputError: the text means none.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        index, count = map(int, match.groups()) if match else (0, 0)
        if not 1 <= index <= count:
            raise InputError(f"--shard: {text!r} is not a valid shard; expected I/N with I from 1 to N, e.g. 3/20")
        return cls(index=index, count=count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, items: Sequence[T]) -> list[T]:
        """Every `count`-th item: neighbors in the list, which are often alike in size, are spread over the shards."""
        return list(items[self.index - 1 :: self.count])
