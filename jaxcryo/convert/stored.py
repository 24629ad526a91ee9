"""A tensor in somebody's file: what is known of it before it is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Shape and type of a tensor, and the way to read it; `read` costs memory, the rest does not."""

    shape: tuple[int, ...]
    dtype: str
    """As NumPy calls it; bfloat16 is read as float32."""
    read: Callable[[], NDArray[Any]]

    @property
    def is_floating(self) -> bool:
        """Whether the values are real numbers rather than whole ones or booleans."""
        return "float" in self.dtype


StoredTensors = Mapping[str, StoredTensor]
"""The tensors of a file by their names, nested names joined by dots."""
