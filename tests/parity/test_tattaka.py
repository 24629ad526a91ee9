"""tattaka's network against a second writing of the paper's text in PyTorch, around timm's encoder."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
import torch
from torch_tattaka import Tattaka

from jaxcryo.convert.export import export
from jaxcryo.domain import CZII_TYPES
from jaxcryo.models import build
from jaxcryo.recipes import recipe
from jaxcryo.weights import TrainedModel

pytestmark = pytest.mark.parity


@pytest.mark.parametrize(("size", "dilations"), [("paper", ()), ("paper-fastfcn", ()), ("paper-fastfcn", (1, 2))])
def test_heatmaps_are_those_of_pytorch(size: str, dilations: tuple[int, ...]) -> None:
    config = recipe("tattaka", size)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, aspp_dilations=dilations))
    network, params, stats = build(config.model)
    params["head.kernel"] = 100 * params["head.kernel"]
    model = TrainedModel(
        config=config, types=CZII_TYPES, spacing_angstrom=10.0, params=params, stats=stats, source="untrained"
    )
    theirs = Tattaka(config.model).load(export(model, "timm"), params | stats)
    windows = np.random.default_rng(0).standard_normal((1, 16, 64, 64)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(windows)[:, None]).numpy()
    found = np.asarray(jax.jit(network.apply)(params, stats, windows))
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
