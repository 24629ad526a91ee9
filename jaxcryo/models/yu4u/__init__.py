"""yu4u's architecture: a ConvNeXt on slices with their neighbors, and a 3-D decoder (paper section 2.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxcryo.models.architecture import Architecture
from jaxcryo.models.yu4u.config import RECIPES, Yu4uConfig
from jaxcryo.models.yu4u.network import Yu4u
from jaxcryo.models.yu4u.weights import CONVNEXT, CONVNEXT_FEATURES, PUBLISHED

if TYPE_CHECKING:
    from jaxcryo.models.onnx_graph import Value
    from jaxcryo.models.onnx_layers import NetworkGraph


def _onnx(module: Yu4u, graph: NetworkGraph, windows: Value) -> Value:
    from jaxcryo.models.yu4u.onnx import write  # imports onnx, which only conversion needs

    return write(module, graph, windows)


YU4U = Architecture(
    config=Yu4uConfig,
    recipes=RECIPES,
    network=Yu4u,
    onnx=_onnx,
    sources=(PUBLISHED, CONVNEXT, CONVNEXT_FEATURES),
    imagenet="timm/convnext_nano.in12k_ft_in1k",
)
