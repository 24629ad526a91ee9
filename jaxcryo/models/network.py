"""A network as a pure function: parameters and BatchNorm statistics are flat dictionaries of arrays."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxcryo.config import NetworkConfig
from jaxcryo.models.layers import BatchNorm, Init, Stage
from jaxcryo.models.registry import architecture

Weights = dict[str, jax.Array]
"""Arrays by their path in the network, such as `encoder.stages.0.blocks.1.fc1.kernel`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A network without its arrays."""

    config: NetworkConfig
    train_graph: Any
    eval_graph: Any

    def apply(self, params: Weights, stats: Weights, windows: Float[Array, "b d h w"]) -> Float[Array, "b c d h w"]:
        """Heatmaps with the running statistics."""
        heatmaps: Array = _merge(self.eval_graph, params, stats)(windows)
        return heatmaps

    def apply_train(
        self, params: Weights, stats: Weights, windows: Float[Array, "b d h w"]
    ) -> tuple[Float[Array, "b c d h w"], Weights]:
        """Heatmaps with the batch's statistics, and the updated running statistics."""
        module = _merge(self.train_graph, params, stats)
        heatmaps = module(windows)
        return heatmaps, _flat(nnx.state(module, nnx.BatchStat))

    def module(self, params: Weights, stats: Weights) -> nnx.Module:
        """The network in evaluation mode with these arrays."""
        module: nnx.Module = _merge(self.eval_graph, params, stats)
        return module


def build(
    config: NetworkConfig,
    *,
    seed: int | None = 0,
    dtype: DTypeLike = jnp.float32,
    batch_axis: str | None = None,
    rematerialize: bool = False,
) -> tuple[Network, Weights, Weights]:
    """The network of a config with random parameters: (network, parameters, statistics).

    Without a seed only the parameters' shapes are real; that takes no memory. `batch_axis` names the mapped axis over
    which BatchNorm's batch statistics are averaged in training. `rematerialize` computes the encoder's activations
    again in the backward pass, for less memory.
    """
    module = architecture(config.arch).network(config, dtype=dtype, init=Init(seed))
    for _, node in nnx.iter_graph(module):
        if isinstance(node, BatchNorm):
            node.batch_axis = batch_axis
        elif isinstance(node, Stage):
            node.rematerialize = rematerialize
    module.train()
    train_graph, params, stats = nnx.split(module, nnx.Param, nnx.BatchStat)  # type: ignore[misc]
    module.eval()
    eval_graph = nnx.graphdef(module)
    return Network(config=config, train_graph=train_graph, eval_graph=eval_graph), _flat(params), _flat(stats)


def _flat(state: Any) -> Weights:
    return {".".join(map(str, path)): leaf.get_value() for path, leaf in nnx.to_flat_state(state)}


def _merge(graph: Any, params: Weights, stats: Weights) -> Any:
    def state(kind: type[nnx.Variable[Any]], arrays: Weights) -> Any:
        return nnx.from_flat_state(
            [(tuple(int(p) if p.isdigit() else p for p in k.split(".")), kind(v)) for k, v in arrays.items()]
        )

    return nnx.merge(graph, state(nnx.Param, params), state(nnx.BatchStat, stats), copy=True)
