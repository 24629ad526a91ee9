"""yu4u's whole network, live, through a Lightning checkpoint."""

from __future__ import annotations

import pathlib

import jax
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch_reference import Yu4u, fill_module

from jaxcryo.convert.export import export
from jaxcryo.convert.port import PortOptions, port
from jaxcryo.models import build

pytestmark = pytest.mark.parity


def test_heatmaps_are_those_of_pytorch_and_the_way_back_loads_strictly(tmp_path: pathlib.Path) -> None:
    theirs = fill_module(Yu4u())
    state = {f"model.{k}": torch.zeros_like(v) for k, v in theirs.state_dict().items()}
    state |= {f"model_ema.module.{k}": v for k, v in theirs.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 1, "loops": {}}, tmp_path / "a.ckpt")
    _, model = port(tmp_path / "a.ckpt", PortOptions(arch="yu4u"))
    network, _, _ = build(model.config.model, seed=None)
    windows = np.random.default_rng(0).standard_normal((1, 32, 64, 96)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(windows)[:, None]).numpy()
    found = np.asarray(jax.jit(network.apply)(model.params, model.stats, windows))
    assert np.abs(found - expected).max() < 1e-4
    save_file(export(model, "lightning"), tmp_path / "out.safetensors")
    back = Yu4u()
    back.load_state_dict({k.removeprefix("model."): v for k, v in load_file(tmp_path / "out.safetensors").items()})
    for key, value in theirs.state_dict().items():
        assert key.endswith("num_batches_tracked") or torch.equal(value, back.state_dict()[key]), key
