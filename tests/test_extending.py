"""An architecture and a backend from outside the package, taken through the commands (docs/extending.md)."""

from __future__ import annotations

import pathlib
import sys

import numpy as np
import pytest
from toys import TOY, Everywhere, ToyConfig

from jaxcryo.cli.convert import main as convert
from jaxcryo.cli.infer import main as infer
from jaxcryo.cli.train import main as train
from jaxcryo.errors import InputError
from jaxcryo.models import registry
from jaxcryo.picks.copick_json import read_copick_folder
from jaxcryo.recipes import recipe
from jaxcryo.runtime import backends
from jaxcryo.runtime.backends import choose_backend, open_model
from jaxcryo.runtime.manifest import read_manifest
from jaxcryo.weights import load_model


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both known for the duration of a test."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    monkeypatch.setattr(backends, "_registered", dict(backends._registered))
    registry.register(TOY)
    backends.register(Everywhere())


@pytest.mark.slow
def test_an_architecture_from_outside_is_trained_converted_and_used(toys, dataset, tmp_path, capsys) -> None:
    run, out, picks = tmp_path / "run", tmp_path / "out", tmp_path / "picks"
    command = ["--arch", "toy", "--size", "tiny", "--fold", "1", "--data", str(dataset), "--steps", "2"]
    assert train([*command, "--out", str(run)]) == 0
    assert load_model(run / "best.safetensors").config.model == ToyConfig()
    assert convert(["onnx", str(run), "--out", str(out)]) == 0
    (entry,) = read_manifest(out)
    assert (entry.arch, entry.model, entry.patch_zyx) == ("toy", ToyConfig(), (16, 32, 32))
    windows = np.random.default_rng(0).standard_normal((entry.batch, *entry.patch_zyx), np.float32)
    in_flax, in_openvino = (
        np.asarray(open_model(out, entry, backend).predict(windows)) for backend in ("flax", "openvino")
    )
    np.testing.assert_allclose(in_openvino, in_flax, atol=1e-5 * float(np.abs(in_flax).max()))
    command = ["--engines", str(out), "--data", str(dataset), "--runs", "PT_000", "--backend", "openvino"]
    assert infer([*command, "--out", str(picks), "--no-report"]) == 0
    assert "PT_000" in read_copick_folder(picks, entry.types)


def test_an_architecture_from_outside_has_its_own_sizes(toys) -> None:
    with pytest.raises(InputError, match=r"toy has no size 'paper'; expected one of tiny"):
        recipe("toy")
    with pytest.raises(InputError, match=r"'unet' is not a known architecture; expected one of yu4u, tattaka, toy"):
        recipe("unet")


@pytest.mark.slow
def test_a_backend_from_outside_runs_models(toys, dataset, engines, tmp_path, capsys) -> None:
    entries = read_manifest(engines)
    assert choose_backend("auto", engines, entries) == ("everywhere", "made for a test")
    command = ["--engines", str(engines), "--data", str(dataset), "--runs", "PT_000", "--backend", "everywhere"]
    assert infer([*command, "--out", str(tmp_path), "--no-report"]) == 0
    assert "everywhere" in capsys.readouterr().out
    found = read_copick_folder(tmp_path, entries[0].types)["PT_000"]
    assert {len(found.of(t.name)) for t in entries[0].types if t.radius_angstrom == 90} != {0}
    with pytest.raises(InputError, match=r"'nowhere' is not a known backend; expected one of auto, everywhere"):
        choose_backend("nowhere", engines, entries)


def test_an_installed_package_brings_its_own(
    toys: None, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the entry points of its distribution, without a call."""
    information = tmp_path / "jaxcryo_toys-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: jaxcryo-toys\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[jaxcryo.architectures]\ninstalled = jaxcryo_toys:ARCHITECTURE\n"
        "[jaxcryo.backends]\ninstalled = jaxcryo_toys:Installed\n"
    )
    (tmp_path / "jaxcryo_toys.py").write_text(
        "import dataclasses\n"
        "from jaxcryo.models.yu4u import YU4U\n"
        "from jaxcryo.models.yu4u.config import Yu4uConfig\n"
        "from jaxcryo.runtime.backends.flax import FlaxBackend\n"
        "class InstalledConfig(Yu4uConfig):\n    arch = 'installed'\n"
        "ARCHITECTURE = dataclasses.replace(YU4U, config=InstalledConfig)\n"
        "class Installed(FlaxBackend):\n    name = 'installed'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in (registry, backends):
        module._installed.cache_clear()
    try:
        assert list(registry.architectures()) == ["yu4u", "tattaka", "toy", "installed"]
        assert backends.backend_names() == ("auto", "installed", "everywhere", "tensorrt", "openvino", "flax")
    finally:
        sys.modules.pop("jaxcryo_toys", None)
        for module in (registry, backends):
            module._installed.cache_clear()
