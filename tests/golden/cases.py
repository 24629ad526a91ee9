"""The golden cases: names and shapes of the reference's tensors, our networks filled with their weights."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from golden.fill import fill, volume
from golden.quick import compiled

from jaxcryo.models import build
from jaxcryo.models.layers import Init
from jaxcryo.models.naming import Source, match_source, to_ours
from jaxcryo.models.tattaka.config import ResNetRSConfig
from jaxcryo.models.tattaka.encoder import ResNetRS
from jaxcryo.models.tattaka.weights import RESNET_RS
from jaxcryo.models.yu4u.config import ConvNeXtConfig, Yu4uConfig
from jaxcryo.models.yu4u.encoder import ConvNeXt
from jaxcryo.models.yu4u.weights import CONVNEXT_FEATURES, PUBLISHED, SLICER

FOLDER = pathlib.Path(__file__).parent
TIMM_NAMES = {"convnext_nano": "convnext_nano.in12k_ft_in1k", "resnetrs50": "resnetrs50.tf_in1k"}
FEATURE_CASES = (("convnext_nano", 3), ("convnext_nano", 5), ("resnetrs50", 1), ("resnetrs50", 3))

Shape = tuple[int, ...]


def listed(name: str) -> dict[str, Shape]:
    """Names and shapes in one of the lists, such as `yu4u`."""
    lines = (FOLDER / f"{name}-state-dict.txt").read_text().splitlines()
    pairs = (line.split("\t") for line in lines)
    return {key: () if size == "scalar" else tuple(map(int, size.split("x"))) for key, size in pairs}


def feature_names(model: str, channels: int) -> dict[str, Shape]:
    """Names and shapes of timm's `features_only` encoder: without the classifier, ConvNeXt's sequences flattened."""
    found = {}
    for key, shape in listed(f"{model}-timm").items():
        if key.startswith(("head.", "fc.")):
            continue
        if shape[1:2] == (3,):
            shape = (shape[0], channels, *shape[2:])
        found[key.replace("stem.", "stem_").replace("stages.", "stages_")] = shape
    return found


def reference_tensor(key: str, shape: Shape) -> np.ndarray:
    """The value of a tensor in the golden cases; yu4u's fixed kernel is the identity."""
    return np.eye(5, dtype=np.float32).reshape(shape) if key == SLICER else fill(key, shape)


def ported(shapes: dict[str, Shape], kind: Source) -> dict[str, np.ndarray]:
    """The reference's tensors under our names and in our layouts."""
    arrays = {}
    for key, shape in shapes.items():
        match = match_source(kind.rules, key)
        assert match is not None, key
        if match.target is not None:
            arrays[match.target] = to_ours(reference_tensor(key, shape), match.rule)
    return arrays


def filled(module: nnx.Module, arrays: dict[str, np.ndarray]) -> nnx.Module:
    """The module in evaluation mode, every parameter and statistic taken from `arrays`."""
    module.eval()
    graph, params, stats = nnx.split(module, nnx.Param, nnx.BatchStat)
    names = set()
    for state in (params, stats):
        for path, leaf in nnx.to_flat_state(state):
            name = ".".join(map(str, path))
            assert arrays[name].shape == leaf.get_value().shape, name
            leaf.set_value(jnp.asarray(arrays[name]))
            names.add(name)
    assert names == set(arrays), names ^ set(arrays)
    return nnx.merge(graph, params, stats)


def encoder_features(model: str, channels: int) -> list[np.ndarray]:
    """The golden encoder's feature maps (n, c, h, w), one per stage."""
    init = Init(None)
    if model == "convnext_nano":
        kind, module = CONVNEXT_FEATURES, ConvNeXt(ConvNeXtConfig(in_channels=channels), init=init)
    else:
        kind, module = RESNET_RS, ResNetRS(ResNetRSConfig(in_channels=channels), init=init)
    arrays = ported(feature_names(model, channels), kind)
    module = filled(module, below(arrays, "encoder."))
    x = volume(f"{TIMM_NAMES[model]}-{channels}", (2, channels, 128, 128)).transpose(0, 2, 3, 1)

    @compiled
    def run(x: jax.Array) -> list[jax.Array]:
        maps = []
        if isinstance(module, ResNetRS):
            x = module.stem(x)
            maps.append(x)
        for stage in module.stages:
            x = stage(x)
            maps.append(x)
        return maps

    return [np.asarray(m).transpose(0, 3, 1, 2) for m in run(jnp.asarray(x))]


def feature_errors(model: str, channels: int) -> list[float]:
    """The largest difference of each stage from the golden one, in that stage's standard deviations."""
    golden = np.load(FOLDER / f"{model}-{channels}ch-features.npz")
    errors = []
    for n, found in enumerate(encoder_features(model, channels)):
        parts = {
            "corner": found[:, :64, :4, :4],
            "mean": found.mean((2, 3), dtype=np.float64),
            "std": found.std((2, 3), dtype=np.float64),
        }
        spread = golden[f"stage{n}_corner"].std()
        errors.append(max(float(np.abs(v - golden[f"stage{n}_{k}"]).max() / spread) for k, v in parts.items()))
    return errors


def yu4u_errors() -> dict[str, float]:
    """The largest absolute difference from each golden array of yu4u's whole network."""
    arrays = ported(listed("yu4u"), PUBLISHED)
    network, params, stats = build(Yu4uConfig(), seed=None)
    windows = volume("yu4u-input", (2, 1, 16, 128, 128))[:, 0]
    heatmaps = np.asarray(
        compiled(network.apply)(
            {k: jnp.asarray(arrays[k]) for k in params}, {k: jnp.asarray(arrays[k]) for k in stats}, windows
        )
    )
    golden = np.load(FOLDER / "yu4u-output.npz")
    return {k: float(np.abs(v - golden[k]).max()) for k, v in yu4u_arrays(heatmaps).items()}


def yu4u_arrays(heatmaps: np.ndarray) -> dict[str, np.ndarray]:
    """What a golden file keeps of heatmaps (2, 6, 16, 128, 128)."""
    return {
        "heatmap_slice_7": heatmaps[:, :, 7, ::2, ::2],
        "corner": heatmaps[:, :, :4, :4, :4],
        "centre": heatmaps[:, :, 6:10, 60:68, 60:68],
        "mean": heatmaps.mean((2, 3, 4)),
        "std": heatmaps.std((2, 3, 4)),
    }


def below(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names start with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def only(shapes: dict[str, Shape], prefixes: Iterable[str]) -> dict[str, Shape]:
    """The names below some prefixes."""
    return {k: s for k, s in shapes.items() if k.startswith(tuple(prefixes))}
