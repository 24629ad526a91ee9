"""Tensor names of timm's ResNet-RS. Weights of the whole network were never published."""

from __future__ import annotations

from collections.abc import Iterator

from jaxcryo.models.naming import Rule, Source, batch_norm, conv, with_prefix


def resnet_rs_rules() -> Iterator[Rule]:
    """Ignored in a whole timm model; its features alone have the same names."""
    yield from conv("conv1.0", "stem.conv1.conv", "conv2d", first=True)
    yield from batch_norm("conv1.1", "stem.conv1.norm")
    yield from conv("conv1.3", "stem.conv2.conv", "conv2d")
    yield from batch_norm("conv1.4", "stem.conv2.norm")
    yield from conv("conv1.6", "stem.conv3.conv", "conv2d")
    yield from batch_norm("bn1", "stem.conv3.norm")
    yield from conv("maxpool.0", "stages.0.pool.conv", "conv2d")
    yield from batch_norm("maxpool.1", "stages.0.pool.norm")
    theirs, ours = "layer{stage+1}.{block}", "stages.{stage}.blocks.{block}"
    for n in (1, 2, 3):
        yield from conv(f"{theirs}.conv{n}", f"{ours}.conv{n}.conv", "conv2d")
        yield from batch_norm(f"{theirs}.bn{n}", f"{ours}.conv{n}.norm")
    yield from conv(f"{theirs}.se.fc1", f"{ours}.se.fc1", "conv2d", bias=True)
    yield from conv(f"{theirs}.se.fc2", f"{ours}.se.fc2", "conv2d", bias=True)
    yield from conv(f"{theirs}.downsample.1", f"{ours}.shortcut.conv", "conv2d")
    yield from batch_norm(f"{theirs}.downsample.2", f"{ours}.shortcut.norm")
    for name in ("fc.weight", "fc.bias"):
        yield Rule(source=name, reason="ImageNet's classifier; the decoder takes its place")


RESNET_RS = Source(title="timm's ResNet-RS", form="timm", rules=with_prefix(resnet_rs_rules(), target="encoder."))
