"""yu4u's whole network (`Timm3DDecoder3`) to ours."""

from __future__ import annotations

from collections.abc import Iterator

from jaxcryo.convert.rules import Rule, batch_norm, conv, with_prefix
from jaxcryo.convert.rules_convnext import convnext_rules

SLICER = "stem.conv.weight"
"""The fixed kernel that makes channels of a slice's neighbours; it must be the identity."""


def yu4u_rules() -> tuple[Rule, ...]:
    """Rules for the names in `Timm3DDecoder3.state_dict()`."""
    return tuple(_rules())


def _rules() -> Iterator[Rule]:
    yield Rule(source=SLICER, reason="the identity: our network takes the neighbouring slices without a kernel")
    yield from with_prefix(convnext_rules("_"), source="backbone.", target="encoder.")
    yield from conv("conv3ds.{stage}.{layer}.block.0", "lateral.{stage}.{layer}.conv", "conv3d")
    yield from batch_norm("conv3ds.{stage}.{layer}.block.1", "lateral.{stage}.{layer}.norm")
    yield from conv("decoder.blocks.{block}.conv1.block.0", "decoder.{block}.up", "conv3d")
    yield from batch_norm("decoder.blocks.{block}.conv1.block.1", "decoder.{block}.norm")
    yield from conv("decoder.blocks.{block}.conv2.block.0", "decoder.{block}.refine.conv", "conv3d")
    yield from batch_norm("decoder.blocks.{block}.conv2.block.1", "decoder.{block}.refine.norm")
    yield from conv("segmentation_head", "head", "conv3d", bias=True)
