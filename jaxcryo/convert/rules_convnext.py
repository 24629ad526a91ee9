"""timm's ConvNeXt (`convnext_nano`) to ours."""

from __future__ import annotations

from collections.abc import Iterator

from jaxcryo.convert.rules import Rule, conv, layer_norm


def convnext_rules(separator: str = ".") -> tuple[Rule, ...]:
    """Rules for the names of a whole timm model (`stages.0`), or, with "_", of its features alone (`stages_0`)."""
    return tuple(_rules(separator))


def _rules(s: str) -> Iterator[Rule]:
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
