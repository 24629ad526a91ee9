"""`python -m convert check` passes engines that answer as Flax does, and no others."""

from __future__ import annotations

import pathlib

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from jaxcryo.cli.convert import main
from jaxcryo.config import Precision
from jaxcryo.convert import check
from jaxcryo.convert.check import FLOAT16_SHARE, LIMITS, Range, check_entry
from jaxcryo.convert.comparison import phantom_windows
from jaxcryo.convert.onnx_models import OnnxOptions, convert_models
from jaxcryo.convert.onnx_write import group_of
from jaxcryo.domain import CZII_TYPES
from jaxcryo.models import build
from jaxcryo.recipes import recipe
from jaxcryo.runtime.manifest import ModelEntry, file_sha256, read_manifest
from jaxcryo.weights import TrainedModel, save_model


def convert(
    folder: pathlib.Path, arch: str, precision: Precision, scales: dict[str, float] | None = None
) -> ModelEntry:
    """A fresh network as an engine in the folder, some of its parameters scaled."""
    config = recipe(arch, "tiny")
    _, params, stats = build(config.model, seed=0)
    params |= {name: params[name] * scale for name, scale in (scales or {}).items()}
    source = folder / "source.safetensors"
    model = TrainedModel(
        config=config, types=CZII_TYPES, spacing_angstrom=10.012444, params=params, stats=stats, source="a test"
    )
    save_model(source, model)
    (entry,) = convert_models([source], folder / "out", OnnxOptions(precision=precision, batch=2))
    return entry


def damage(folder: pathlib.Path, entry: ModelEntry) -> None:
    """Another bias in the head, and a manifest that agrees with the file."""
    path = folder / entry.onnx_file
    model = onnx.load(path)
    head = next(n for n in model.graph.node if n.name == "head/Conv")
    (bias,) = (i for i in model.graph.initializer if i.name == head.input[2])
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.1), bias.name))
    onnx.save(model, path)
    manifest = folder / "engines.json"
    manifest.write_text(manifest.read_text().replace(entry.onnx_sha256, file_sha256(path)))


@pytest.mark.slow
def test_engines_that_are_right(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(tmp_path, "yu4u", "float32")
    assert main(["check", str(tmp_path / "out"), "--windows", "1"]) == 0
    said = capsys.readouterr().out
    for word in ("onnxruntime", "openvino float32", "noise", "phantom", "1e-05", "within tolerance"):
        assert word in said
    assert "FAIL" not in said


def test_an_engine_that_is_off(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = convert(tmp_path, "yu4u", "float32")
    damage(tmp_path / "out", entry)
    assert main(["check", str(tmp_path / "out"), "--windows", "1"]) == 1
    assert "FAIL" in capsys.readouterr().out


@pytest.mark.slow
def test_float16_is_compared_and_its_range_watched(tmp_path: pathlib.Path) -> None:
    entry = convert(tmp_path, "tattaka", "float16")
    comparisons, ranges = check_entry(tmp_path / "out", entry, 3)
    assert all(c.is_ok for c in comparisons)
    assert {c.limit for c in comparisons if c.backend != "openvino bfloat16"} == {LIMITS["float16"]}
    assert all(r.is_ok and r.largest > 0 for r in ranges)
    modules = [r.module for r in ranges]
    assert len(modules) == len(set(modules))
    assert {"encoder.stem.conv1", "encoder.stages.3", "jpu.branches.2", "decoder.0", "head"} <= set(modules)


@pytest.mark.slow
def test_values_near_the_end_of_float16_are_off(tmp_path: pathlib.Path) -> None:
    entry = convert(tmp_path, "yu4u", "float16", {"decoder.1.refine.norm.scale": 2e4})
    _, ranges = check_entry(tmp_path / "out", entry, 1)
    off = {r.module for r in ranges if not r.is_ok}
    assert "decoder.1" in off
    assert "decoder.0" not in off
    assert Range(model="a", module="b", largest=FLOAT16_SHARE * 65504).is_ok
    assert not Range(model="a", module="b", largest=float("nan")).is_ok


@pytest.mark.slow
def test_without_onnxruntime_openvino_serves(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(tmp_path, "yu4u", "float16")
    monkeypatch.setattr(check, "_has_onnxruntime", lambda: False)
    assert main(["check", str(tmp_path / "out"), "--windows", "1"]) == 0
    said = capsys.readouterr().out
    assert "onnxruntime" in said
    assert "openvino float32" in said
    assert "decoder.2" in said


def test_phantom_windows_are_normalized(tmp_path: pathlib.Path) -> None:
    convert(tmp_path, "yu4u", "float32")
    (entry,) = read_manifest(tmp_path / "out")
    windows = phantom_windows(entry, 3)
    assert windows.shape == (3, *entry.patch_zyx)
    assert windows.dtype == np.float32
    assert abs(windows.mean()) < 0.5
    assert 0.5 < windows.std() < 2
    np.testing.assert_array_equal(windows[0][:, :, 16:], windows[1][:, :, :-16])


def test_no_windows(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path), "--windows", "0"]) == 2
    assert "--windows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "module"),
    [
        ("encoder.stages.0.blocks.1/Conv_2", "encoder.stages.0"),
        ("encoder.stem.conv1/Relu", "encoder.stem.conv1"),
        ("jpu/Concat", "jpu"),
        ("decoder.2.up/Conv", "decoder.2"),
        ("head/Conv", "head"),
    ],
)
def test_values_are_grouped_by_module(value: str, module: str) -> None:
    assert group_of(value) == module
