"""tattaka's architecture: a ResNet-RS on slices, joint pyramid upsampling and a 3-D decoder (paper section 2.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxcryo.models.architecture import Architecture
from jaxcryo.models.tattaka.config import RECIPES, TattakaConfig
from jaxcryo.models.tattaka.network import Tattaka
from jaxcryo.models.tattaka.weights import RESNET_RS

if TYPE_CHECKING:
    from jaxcryo.models.onnx_graph import Value
    from jaxcryo.models.onnx_layers import NetworkGraph


def _onnx(module: Tattaka, graph: NetworkGraph, windows: Value) -> Value:
    from jaxcryo.models.tattaka.onnx import write  # imports onnx, which only conversion needs

    return write(module, graph, windows)


TATTAKA = Architecture(
    config=TattakaConfig,
    recipes=RECIPES,
    network=Tattaka,
    onnx=_onnx,
    sources=(RESNET_RS,),
    imagenet="timm/resnetrs50.tf_in1k",
)
