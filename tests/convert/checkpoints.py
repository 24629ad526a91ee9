"""Sources to port: golden names and shapes without their values, and tiny models under foreign names."""

from __future__ import annotations

import numpy as np

from jaxcryo.convert.export import export
from jaxcryo.convert.torch_zip import StoredTensor
from jaxcryo.domain import CZII_TYPES
from jaxcryo.models import build
from jaxcryo.recipes import recipe
from jaxcryo.weights import TrainedModel


def unread(shapes: dict[str, tuple[int, ...]], prefix: str = "") -> dict[str, StoredTensor]:
    """Tensors that must not be read."""

    def read() -> np.ndarray:
        raise AssertionError("a plan reads no tensor")

    return {
        prefix + k: StoredTensor(shape=s, dtype="int64" if k.endswith("tracked") else "float32", read=read)
        for k, s in shapes.items()
    }


def tiny_model(arch: str, *, seed: int = 7, classes: int = 6) -> TrainedModel:
    """A model whose every value is random, statistics and zero-initialised parameters included."""
    config = recipe(arch, "tiny", classes=classes)
    _, params, stats = build(config.model, seed=None)
    rng = np.random.default_rng(seed)

    def draw(arrays: dict[str, object]) -> dict[str, np.ndarray]:
        return {k: rng.random(v.shape, np.float32) + np.float32(0.5) for k, v in arrays.items()}

    return TrainedModel(
        config=config,
        types=CZII_TYPES[:classes],
        spacing_angstrom=10.0,
        params=draw(params),
        stats=draw(stats),
        source="t",
    )


def lightning(model: TrainedModel, averaged: TrainedModel | None = None) -> dict[str, object]:
    """The content of a Lightning checkpoint of yu4u's training."""
    weights = dict(export(model, "lightning"))
    if averaged is not None:
        weights |= {f"model_ema.module.{k.removeprefix('model.')}": v for k, v in export(averaged, "lightning").items()}
    return {"epoch": 63, "pytorch-lightning_version": "2.4.0", "state_dict": weights, "loops": {"fit_loop": {}}}
