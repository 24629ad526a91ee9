"""What the rest of the program needs of an architecture."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flax import nnx

from jaxcryo.config import NetworkConfig, TrainConfig
from jaxcryo.models.naming import Source

if TYPE_CHECKING:
    from jaxcryo.models.onnx_graph import Value
    from jaxcryo.models.onnx_layers import NetworkGraph


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network with everything that training, porting, conversion and inference need to know of it."""

    config: type[NetworkConfig]
    """Its sizes; the record's `arch` is the architecture's name."""
    recipes: Mapping[str, Callable[[int], TrainConfig]]
    """By `--size`, the training for a number of classes."""
    network: Callable[..., nnx.Module]
    """`network(config, dtype=, init=)`: windows (b, d, h, w) to heatmaps (b, c, d, h, w) in float32."""
    onnx: Callable[[Any, NetworkGraph, Value], Value]
    """Adds the nodes of the network in evaluation mode to a graph; windows to heatmaps."""
    sources: tuple[Source, ...] = ()
    """The sources whose weights can be ported, whole networks before encoders."""
    imagenet: str | None = None
    """The encoder that trainings start from, by its name on the Hugging Face hub."""

    @property
    def name(self) -> str:
        """Its name for `--arch`."""
        return self.config.arch
