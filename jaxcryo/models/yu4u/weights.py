"""How yu4u's published network (`Timm3DDecoder3`) and timm's ConvNeXt name their tensors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.config import NetworkConfig
from jaxcryo.models.naming import Rule, Source, batch_norm, conv, layer_norm, with_prefix

SLICER = "stem.conv.weight"
"""The fixed kernel that makes channels of a slice's neighbors; it must be the identity."""


def convnext_rules(separator: str = ".") -> Iterator[Rule]:
    """For the names of a whole timm model (`stages.0`), or, with "_", of its features alone (`stages_0`)."""
    s = separator
    yield from conv(f"stem{s}0", "stages.0.conv", "conv2d", bias=True, first=True)
    yield from layer_norm(f"stem{s}1", "stages.0.norm")
    stage = f"stages{s}{{stage}}"
    yield from layer_norm(f"{stage}.downsample.0", "stages.{stage}.norm")
    yield from conv(f"{stage}.downsample.1", "stages.{stage}.conv", "conv2d", bias=True)
    theirs, ours = f"{stage}.blocks.{{block}}", "stages.{stage}.blocks.{block}"
    yield Rule(source=f"{theirs}.gamma", target=f"{ours}.gamma")
    yield from conv(f"{theirs}.conv_dw", f"{ours}.conv_dw", "conv2d", bias=True)
    yield from layer_norm(f"{theirs}.norm", f"{ours}.norm")
    yield from conv(f"{theirs}.mlp.fc1", f"{ours}.fc1", "conv2d", bias=True)
    yield from conv(f"{theirs}.mlp.fc2", f"{ours}.fc2", "conv2d", bias=True)
    for name in ("head.norm.weight", "head.norm.bias", "head.fc.weight", "head.fc.bias"):
        yield Rule(source=name, reason="ImageNet's classifier; the decoder takes its place")


def published_rules() -> Iterator[Rule]:
    """For the names in `Timm3DDecoder3.state_dict()`."""
    yield Rule(source=SLICER, reason="the identity: our network takes the neighboring slices without a kernel")
    yield from with_prefix(convnext_rules("_"), source="backbone.", target="encoder.")
    yield from conv("conv3ds.{stage}.{layer}.block.0", "lateral.{stage}.{layer}.conv", "conv3d")
    yield from batch_norm("conv3ds.{stage}.{layer}.block.1", "lateral.{stage}.{layer}.norm")
    yield from conv("decoder.blocks.{block}.conv1.block.0", "decoder.{block}.up", "conv3d")
    yield from batch_norm("decoder.blocks.{block}.conv1.block.1", "decoder.{block}.norm")
    yield from conv("decoder.blocks.{block}.conv2.block.0", "decoder.{block}.refine.conv", "conv3d")
    yield from batch_norm("decoder.blocks.{block}.conv2.block.1", "decoder.{block}.refine.norm")
    yield from conv("segmentation_head", "head", "conv3d", bias=True)


def _slicer(config: NetworkConfig) -> Float[NDArray[np.float32], "channels 1 channels 1 1"]:
    channels: int = 2 * config.neighbors + 1  # type: ignore[attr-defined]
    return np.eye(channels, dtype=np.float32).reshape(channels, 1, channels, 1, 1)


def _channels_per_class(config: NetworkConfig) -> int:
    stride: int = config.head_stride  # type: ignore[attr-defined]
    return stride**3


PUBLISHED = Source(
    title="yu4u's network",
    form="lightning",
    rules=tuple(published_rules()),
    head="segmentation_head.weight",
    channels_per_class=_channels_per_class,
    fixed={SLICER: _slicer},
    of_the_challenge=True,
)
CONVNEXT = Source(title="timm's ConvNeXt", form="timm", rules=with_prefix(convnext_rules("."), target="encoder."))
CONVNEXT_FEATURES = Source(
    title="timm's ConvNeXt, features only", rules=with_prefix(convnext_rules("_"), target="encoder.")
)
