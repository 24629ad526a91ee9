"""Models by JAX itself: everywhere, from the weights beside the ONNX file."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxcryo.config import NetworkConfig
from jaxcryo.models import Network, build
from jaxcryo.runtime.backends.base import Fit, precision_as_asked
from jaxcryo.runtime.manifest import ModelEntry
from jaxcryo.runtime.opened import Predict
from jaxcryo.runtime.precision import PrecisionChoice
from jaxcryo.weights import load_model


class FlaxBackend:
    """Flax, on whatever device JAX computes on."""

    name = "flax"

    def fit(self, folder: pathlib.Path, entries: Sequence[ModelEntry]) -> Fit:
        """It runs everywhere."""
        return Fit(suits=True, reason="runs everywhere")

    def precision(self, choice: PrecisionChoice, entries: Sequence[ModelEntry]) -> tuple[tuple[ModelEntry, ...], str]:
        """What was asked for; a float16 file is computed in float32."""
        return precision_as_asked(choice, entries)

    def open(self, folder: pathlib.Path, entry: ModelEntry) -> Predict:
        """The network with its weights bound."""
        model = load_model(folder / entry.weights_file)
        apply = _network(entry.model, jnp.dtype(jnp.bfloat16 if entry.precision == "bfloat16" else jnp.float32)).apply
        return jax.tree_util.Partial(apply, model.params, model.stats)


@functools.cache
def _network(config: NetworkConfig, dtype: DTypeLike) -> Network:
    """One object for all models of a config, so that they share what is compiled."""
    return build(config, seed=None, dtype=dtype)[0]
