"""timm's encoders, live: the same features from the same file, at sizes that the goldens do not have."""

from __future__ import annotations

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch_reference import encoder, fill_module, timm

from jaxcryo.convert.export import export
from jaxcryo.convert.port import PortOptions, port
from jaxcryo.models import build

pytestmark = pytest.mark.parity
CASES = pytest.mark.parametrize(
    ("arch", "name", "channels"), [("yu4u", "convnext_nano", 5), ("tattaka", "resnetrs50", 1)]
)


@CASES
@pytest.mark.parametrize("rgb", [False, True])
def test_features_are_timms(tmp_path: pathlib.Path, arch: str, name: str, channels: int, rgb: bool) -> None:
    theirs = fill_module(encoder(name, 3 if rgb else channels))
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    if rgb:
        adapted = encoder(name, channels)
        state = theirs.state_dict()
        first = next(iter(state))
        state[first] = timm.models.adapt_input_conv(channels, state[first])
        adapted.load_state_dict(state)
        theirs = adapted.eval()
    _, model = port(tmp_path / "a.pth", PortOptions(arch=arch))
    network, _, _ = build(model.config.model, seed=None)
    x = np.random.default_rng(0).standard_normal((1, channels, 96, 64)).astype(np.float32)
    with torch.no_grad():
        expected = [f.numpy() for f in theirs(torch.from_numpy(x))]

    @jax.jit
    def features(x: jax.Array) -> list[jax.Array]:
        module = network.module(model.params, model.stats).encoder
        maps = []
        if arch == "tattaka":
            x = module.stem(x)
            maps.append(x)
        for stage in module.stages:
            x = stage(x)
            maps.append(x)
        return maps

    for n, (a, b) in enumerate(zip(features(jnp.asarray(x.transpose(0, 2, 3, 1))), expected, strict=True)):
        assert np.abs(np.asarray(a).transpose(0, 3, 1, 2) - b).max() < 1e-4 * b.std(), n


@CASES
def test_an_exported_encoder_loads_into_timm(tmp_path: pathlib.Path, arch: str, name: str, channels: int) -> None:
    theirs = fill_module(encoder(name, channels))
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    _, model = port(tmp_path / "a.pth", PortOptions(arch=arch))
    save_file(export(model, "timm"), tmp_path / "out.safetensors")
    whole = timm.create_model(name, in_chans=channels, num_classes=0)
    missing, unexpected = whole.load_state_dict(load_file(tmp_path / "out.safetensors"), strict=False)
    assert not unexpected and all(k.startswith("head.") for k in missing)
    loaded = {k.replace("stem.", "stem_").replace("stages.", "stages_"): v for k, v in whole.state_dict().items()}
    for key, value in theirs.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(value, loaded[key]), key
