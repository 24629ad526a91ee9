"""An architecture and a backend from outside the package. Processes that tests start find them here too."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from jaxcryo.cli.train import main
from jaxcryo.config import NetworkConfig, TrainConfig
from jaxcryo.models import Architecture, registry
from jaxcryo.models.layers import Conv, ConvBlock, Init
from jaxcryo.models.onnx_graph import Value
from jaxcryo.models.onnx_layers import NetworkGraph, emit, emit_conv
from jaxcryo.runtime.backends import Fit
from jaxcryo.runtime.backends.base import precision_as_asked
from jaxcryo.runtime.manifest import ModelEntry
from jaxcryo.runtime.opened import Predict
from jaxcryo.runtime.precision import PrecisionChoice


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyConfig(NetworkConfig):
    arch: ClassVar[str] = "toy"

    patch_zyx: tuple[int, int, int] = (16, 32, 32)
    width: int = 4


class Toy(nnx.Module):
    """One convolution and a head."""

    def __init__(self, config: ToyConfig, *, dtype: Any = jnp.float32, init: Init):
        self.block = ConvBlock(1, config.width, dtype=dtype, init=init)
        self.head = Conv(config.width, config.classes, (1, 1, 1), bias=True, dtype=dtype, init=init)

    def __call__(self, windows: jax.Array) -> jax.Array:
        y = self.head(self.block(windows[..., None]))
        return rearrange(y, "b d h w c -> b c d h w").astype(jnp.float32)


def write_toy(module: Toy, graph: NetworkGraph, windows: Value) -> Value:
    b, d, h, w = windows.shape
    with graph.scope("block"):
        x = emit(module.block, graph, graph.reshape(windows, (b, 1, d, h, w)))
    with graph.scope("head"):
        return emit_conv(graph, x, module.head)


def tiny(classes: int) -> TrainConfig:
    return TrainConfig.for_phantoms(ToyConfig(classes=classes), size="tiny", sigma_voxel=5.0)


TOY = Architecture(config=ToyConfig, recipes={"tiny": tiny}, network=Toy, onnx=write_toy)


class Everywhere:
    """A backend that sees a particle of every type in every voxel that is brighter than most."""

    name = "everywhere"

    def fit(self, folder: pathlib.Path, entries: Sequence[ModelEntry]) -> Fit:
        return Fit(suits=True, reason="made for a test")

    def precision(self, choice: PrecisionChoice, entries: Sequence[ModelEntry]) -> tuple[tuple[ModelEntry, ...], str]:
        return precision_as_asked(choice, entries)

    def open(self, folder: pathlib.Path, entry: ModelEntry) -> Predict:
        return lambda windows: jnp.repeat(jax.nn.sigmoid(windows)[:, None], entry.model.classes, axis=1)


if __name__ == "__main__":  # `jaxcryo train` where the toy is known
    registry.register(TOY)
    sys.exit(main(["--arch", "toy", "--size", "tiny", *sys.argv[1:]]))
