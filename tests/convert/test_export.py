"""What was trained here goes out under others' names, and comes back bit-identical."""

from __future__ import annotations

import pathlib
import re

import numpy as np
import pytest
from checkpoints import tiny_model
from golden.cases import listed
from safetensors import safe_open

from jaxcryo.cli.convert import main
from jaxcryo.convert.export import export
from jaxcryo.convert.port import PortOptions, port
from jaxcryo.errors import InputError
from jaxcryo.models import architectures, build
from jaxcryo.recipes import recipe
from jaxcryo.weights import TrainedModel, load_model, save_model


@pytest.mark.parametrize(("arch", "form"), [("yu4u", "lightning"), ("yu4u", "timm"), ("tattaka", "timm")])
def test_port_of_export_is_bit_identical(tmp_path: pathlib.Path, arch: str, form: str) -> None:
    model = tiny_model(arch)
    save_model(tmp_path / "w.safetensors", model)
    assert main(["export", str(tmp_path / "w.safetensors"), "--to", form, str(tmp_path / "out.safetensors")]) == 0
    plan, back = port(tmp_path / "out.safetensors", PortOptions(arch=arch, size="tiny"))
    before, after = model.params | model.stats, back.params | back.stats
    kept = {k for k in before if form == "lightning" or k.startswith("encoder.")}
    assert set(plan.fresh) == set(before) - kept
    for name in kept:
        assert np.asarray(after[name]).tobytes() == np.asarray(before[name]).tobytes(), name


def test_names_and_shapes_are_those_of_the_published_checkpoints() -> None:
    for arch, form, reference in (
        ("yu4u", "lightning", {f"model.{k}": s for k, s in listed("yu4u").items()}),
        ("yu4u", "timm", _without_head(listed("convnext_nano-timm"), 5)),
        ("tattaka", "timm", _without_head(listed("resnetrs50-timm"), 1)),
    ):
        config = recipe(arch, "paper")
        _, params, stats = build(config.model, seed=None)
        model = TrainedModel(
            config=config,
            types=(),
            spacing_angstrom=None,
            source="",
            # Slices of one zero, so that the paper's sizes need no memory.
            params={k: np.broadcast_to(np.float32(0), v.shape) for k, v in params.items() if v.size < 1e6},
            stats=stats,
        )
        found = {k: v.shape for k, v in export(model, form).items()}
        assert found.items() <= reference.items()
        large = {k for k in reference if k not in found}
        assert all(np.prod(reference[k]) >= 1e6 for k in large)


@pytest.mark.parametrize(("files", "chosen"), [(("best", "last"), "best"), (("last",), "last")])
def test_a_run_stands_for_its_best_weights(tmp_path: pathlib.Path, files: tuple[str, ...], chosen: str) -> None:
    models = {name: tiny_model("yu4u", seed=n) for n, name in enumerate(files)}
    for name, model in models.items():
        save_model(tmp_path / "run" / f"{name}.safetensors", model)
    assert main(["export", str(tmp_path / "run"), "--to", "timm", str(tmp_path / "out.safetensors")]) == 0
    with safe_open(tmp_path / "out.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}
        expected = export(models[chosen], "timm")["stem.0.weight"]
        np.testing.assert_array_equal(file.get_tensor("stem.0.weight"), expected)


def test_what_cannot_be_exported(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"tattaka.*lightning"):
        export(tiny_model("tattaka"), "lightning")
    assert main(["export", str(tmp_path), "--to", "timm", str(tmp_path / "x")]) == 2
    assert re.search(r"best\.safetensors.*last\.safetensors", capsys.readouterr().err)


@pytest.mark.parametrize("arch", tuple(architectures()))
def test_ported_files_load(tmp_path: pathlib.Path, arch: str) -> None:
    model = tiny_model(arch)
    save_model(tmp_path / "w.safetensors", model)
    assert load_model(tmp_path / "w.safetensors").types == model.types


def _without_head(names: dict[str, tuple[int, ...]], channels: int) -> dict[str, tuple[int, ...]]:
    kept = {k: s for k, s in names.items() if not k.startswith(("head.", "fc."))}
    return {k: (s[0], channels, *s[2:]) if s[1:2] == (3,) else s for k, s in kept.items()}
