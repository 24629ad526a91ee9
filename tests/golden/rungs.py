"""The parity ladder: stem, block, stage, encoder, network, each with its measured error and its tolerance."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import jax.numpy as jnp
import numpy as np
from golden import reference
from golden.cases import (
    CONVNEXT_FEATURES,
    FEATURE_CASES,
    PUBLISHED,
    RESNET_RS,
    below,
    feature_errors,
    feature_names,
    filled,
    listed,
    only,
    ported,
    reference_tensor,
    yu4u_errors,
)
from golden.fill import volume

from jaxcryo.models.layers import ConvBlock, DecoderBlock, Init
from jaxcryo.models.tattaka.config import ResNetRSConfig
from jaxcryo.models.tattaka.encoder import Bottleneck, ResNetRSStem
from jaxcryo.models.tattaka.network import mix_depth
from jaxcryo.models.yu4u.config import ConvNeXtConfig
from jaxcryo.models.yu4u.encoder import ConvNeXt, ConvNeXtBlock

LAYER_TOLERANCE = 1e-5
"""Largest difference from a float64 reference, in its standard deviations."""
STAGE_TOLERANCE = 1e-4
"""Largest difference from timm's float32 answer, in the stage's standard deviations."""
NETWORK_TOLERANCE = 1e-4
"""Largest absolute difference from the published network's float32 answer (standard deviation 0.25)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rung:
    """One measured comparison."""

    name: str
    against: str
    error: float
    tolerance: float


def convnext_stem() -> Iterator[Rung]:
    """The first layers of a stage without blocks."""
    shapes = only(feature_names("convnext_nano", 5), ("stem_",))
    config = ConvNeXtConfig(depths=(0,), widths=(80,))
    module = filled(ConvNeXt(config, init=Init(None)), below(ported(shapes, CONVNEXT_FEATURES), "encoder."))
    x = volume("stem", (2, 5, 32, 32))
    yield _layer("ConvNeXt stem", module.stages[0], x, reference.convnext_stem(_wide(x), _tensors(shapes)))


def convnext_block() -> Iterator[Rung]:
    """The first block of a stage."""
    name = "stages_1.blocks.0"
    shapes = only(feature_names("convnext_nano", 5), (f"{name}.",))
    arrays = below(ported(shapes, CONVNEXT_FEATURES), "encoder.stages.1.blocks.0.")
    module = filled(ConvNeXtBlock(160, ConvNeXtConfig(), dtype=jnp.float32, init=Init(None)), arrays)
    x = volume("block", (2, 160, 8, 8))
    yield _layer("ConvNeXt block", module, x, reference.convnext_block(_wide(x), _tensors(shapes), name))


def resnet_rs_stem() -> Iterator[Rung]:
    """The deep stem."""
    shapes = only(feature_names("resnetrs50", 1), ("conv1.", "bn1."))
    arrays = below(ported(shapes, RESNET_RS), "encoder.stem.")
    module = filled(ResNetRSStem(ResNetRSConfig(), dtype=jnp.float32, init=Init(None)), arrays)
    x = volume("deep stem", (2, 1, 16, 16))
    yield _layer("ResNet-RS stem", module, x, reference.resnet_rs_stem(_wide(x), _tensors(shapes)))


def bottleneck() -> Iterator[Rung]:
    """A strided block with its shortcut, and a plain one."""
    for block, inputs, stride in ((0, 256, 2), (1, 512, 1)):
        name = f"layer2.{block}"
        shapes = only(feature_names("resnetrs50", 1), (f"{name}.",))
        arrays = below(ported(shapes, RESNET_RS), f"encoder.stages.1.blocks.{block}.")
        module = filled(Bottleneck(inputs, 128, stride, ResNetRSConfig(), dtype=jnp.float32, init=Init(None)), arrays)
        x = volume("bottleneck", (2, inputs, 8, 8))
        expected = reference.bottleneck(_wide(x), _tensors(shapes), name, stride)
        yield _layer(f"ResNet-RS block, stride {stride}", module, x, expected)


def conv_block() -> Iterator[Rung]:
    """The first lateral convolution."""
    name = "conv3ds.0.0"
    shapes = only(listed("yu4u"), (f"{name}.",))
    module = filled(
        ConvBlock(80, 80, dtype=jnp.float32, init=Init(None)), below(ported(shapes, PUBLISHED), "lateral.0.0.")
    )
    x = volume("lateral", (2, 80, 4, 6, 6))
    yield _layer("yu4u 3-D block", module, x, reference.conv_block(_wide(x), _tensors(shapes), name))


def decoder_block() -> Iterator[Rung]:
    """The last decoder block, which upsamples the depth, too."""
    name = "decoder.blocks.2"
    shapes = only(listed("yu4u"), (f"{name}.",))
    module = filled(
        DecoderBlock(768, 80, 256, 2, dtype=jnp.float32, init=Init(None)),
        below(ported(shapes, PUBLISHED), "decoder.2."),
    )
    x, skip = volume("low", (1, 768, 1, 3, 3)), volume("skip", (1, 80, 2, 6, 6))
    expected = reference.decoder_block(_wide(x), _wide(skip), _tensors(shapes), name, 2)
    found = _first(module(jnp.asarray(_last(x)), jnp.asarray(_last(skip))))
    yield _rung("yu4u decoder block", found, expected)


def depth_mixing() -> Iterator[Rung]:
    """tattaka's 3-slice pooling, with both ways to count."""
    x = volume("slices", (2, 8, 5, 4, 4))
    flat = _last(x).reshape(10, 4, 4, 8)
    for counts in (True, False):
        found = _first(mix_depth(jnp.asarray(flat), 2, counts).reshape(2, 5, 4, 4, 8))
        yield _rung(f"tattaka depth mean, padding {'' if counts else 'not '}counted", found,
                    reference.mean_of_three(_wide(x), counts))  # fmt: skip


def encoder_stages() -> Iterator[Rung]:
    """Every stage of both encoders; the last one is the encoder."""
    for model, channels in FEATURE_CASES:
        errors = feature_errors(model, channels)
        for n, error in enumerate(errors):
            name = f"{model}, {channels} channels, {'encoder' if n == len(errors) - 1 else f'stage {n}'}"
            yield Rung(name=name, against="timm, float32", error=error, tolerance=STAGE_TOLERANCE)


def network() -> Iterator[Rung]:
    """yu4u's whole network with 147 M parameters."""
    for name, error in yu4u_errors().items():
        yield Rung(name=f"yu4u network, {name}", against="published, float32", error=error, tolerance=NETWORK_TOLERANCE)


LADDER: tuple[Callable[[], Iterator[Rung]], ...] = (
    convnext_stem,
    convnext_block,
    resnet_rs_stem,
    bottleneck,
    conv_block,
    decoder_block,
    depth_mixing,
    encoder_stages,
    network,
)


def _layer(name: str, module: Callable[[jnp.ndarray], jnp.ndarray], x: np.ndarray, expected: np.ndarray) -> Rung:
    return _rung(name, _first(module(jnp.asarray(_last(x)))), expected)


def _rung(name: str, found: np.ndarray, expected: np.ndarray) -> Rung:
    error = float(np.abs(found - expected).max() / expected.std())
    return Rung(name=name, against="NumPy, float64", error=error, tolerance=LAYER_TOLERANCE)


def _tensors(shapes: dict[str, tuple[int, ...]]) -> reference.Tensors:
    return {k: reference_tensor(k, s).astype(np.float64) for k, s in shapes.items()}


def _wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64)


def _last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1)


def _first(x: object) -> np.ndarray:
    return np.moveaxis(np.asarray(x), -1, 1)
