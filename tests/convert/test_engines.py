"""`jaxcryo convert engine` over a double of TensorRT, and what infer.py then does with the engines."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import sys

import numpy as np
import pytest

from jaxcryo.cli.convert import main as convert
from jaxcryo.cli.infer import main as infer
from jaxcryo.domain import CZII_TYPES
from jaxcryo.models import build
from jaxcryo.phantom import PhantomConfig, write_dataset
from jaxcryo.picks.copick_json import read_copick_folder
from jaxcryo.recipes import recipe
from jaxcryo.runtime.backends import choose_backend
from jaxcryo.runtime.manifest import read_manifest
from jaxcryo.weights import TrainedModel, save_model


def save_weights(path: pathlib.Path, seed: int = 0) -> None:
    config = recipe("tattaka", "tiny")
    _, params, stats = build(config.model, seed=seed)
    params["head.kernel"] = 100 * params["head.kernel"]  # heatmaps with peaks
    save_model(
        path,
        TrainedModel(
            config=config, types=CZII_TYPES, spacing_angstrom=10.0, params=params, stats=stats, source="a test"
        ),
    )


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("engines")
    save_weights(folder / "a.safetensors")
    assert convert(["onnx", str(folder / "a.safetensors"), "--out", str(folder / "out")]) == 0
    return folder / "out"


@pytest.fixture
def out(converted: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(converted, tmp_path / "out"))


def build_engines(out: pathlib.Path, *options: str) -> int:
    return convert(["engine", str(out), *options])


def engine_in(out: pathlib.Path) -> pathlib.Path:
    (path,) = out.glob("*.engine")
    return path


def refusal(out: pathlib.Path, data: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What infer.py says to engines that it must not run."""
    capsys.readouterr()
    picks = out.with_name("picks")
    assert infer(["--engines", str(out), "--data", str(data), "--out", str(picks), "--backend", "tensorrt"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    return said


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("data") / "phantom"
    write_dataset(folder, PhantomConfig(shape_zyx=(32, 72, 80), spacing_angstrom=10.0), runs=0, test_runs=1)
    return folder


def test_it_builds_compares_and_says_what_was_built_where(out, trt, capsys) -> None:
    assert build_engines(out, "--workspace", "2", "--optimization-level", "4") == 0
    said = capsys.readouterr().out
    for part in ("1 model for TensorRT 10.12.0.36, Tesla T4, compute capability 7.5", "phantom", "noise", "ok",
                 "jaxcryo infer --engines"):  # fmt: skip
        assert part in said
    (entry,) = read_manifest(out)
    assert engine_in(out).name == f"a-{entry.onnx_sha256[:12]}-trt10.12.0.36-sm75-b{entry.batch}.engine"
    record = json.loads((out / (engine_in(out).name + ".json")).read_text())
    assert (record["gpu"], record["driver"]) == ("Tesla T4, 15.0 GiB", "for CUDA 12.4")
    assert (record["workspace_bytes"], record["optimization_level"]) == (2 * 2**30, 4)
    assert [a["windows"] for a in record["agreements"]] == ["noise", "phantom"]
    assert all(a["relative_rms"] <= a["limit"] for a in record["agreements"])
    assert json.loads((out / (engine_in(out).name + ".layers.json")).read_text())["Layers"]
    (flags, config), *_ = [value for name, value in trt.calls if name == "build"]
    assert flags == 2 and config.builder_optimization_level == 4 and not config._flags
    assert config._pools == {0: 2 * 2**30} and config.profiling_verbosity == 2


def test_what_fits_is_kept_and_the_timing_cache_is_used_again(out, trt, capsys) -> None:
    assert build_engines(out) == 0
    before = engine_in(out).stat().st_mtime_ns
    assert build_engines(out) == 0
    assert "already exists" in capsys.readouterr().out
    assert engine_in(out).stat().st_mtime_ns == before
    assert build_engines(out, "--force") == 0
    (out / "timing-trt10.12.0.36-sm75.cache").write_bytes(b"of another card")
    assert build_engines(out, "--force") == 0
    assert [value for name, value in trt.calls if name == "timings"] == [b"", b"timings", b""]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("parse", "Resize 'decoder/Resize_1': the mode is not known; Erf 'encoder/Erf_3': no importer"),
        ("build", "cannot build an engine of it (no implementation for node {Resize_1})"),
        ("context", "cannot make room for it on the card (out of memory)"),
    ],
)
def test_failures_end_in_one_message_and_leave_no_engine(out, trt, capsys, fault, message) -> None:
    trt.said = {fault}
    assert build_engines(out) == 2
    assert message in capsys.readouterr().err
    assert not list(out.glob("*.engine*"))


@pytest.mark.parametrize("scale", [1.01, float("nan")])
def test_an_engine_that_is_off_is_not_kept(out, trt, capsys, scale) -> None:
    trt.scale = scale
    assert build_engines(out) == 1
    said = capsys.readouterr().out
    assert "FAIL" in said and "discarded: a" in said
    assert not list(out.glob("*.engine*"))


@pytest.mark.slow
def test_infer_runs_them_and_finds_what_openvino_finds(out, data, trt, tmp_path) -> None:
    assert build_engines(out) == 0
    picks = {}
    for backend in ("tensorrt", "openvino"):
        command = ["--engines", str(out), "--data", str(data), "--out", str(tmp_path / backend), "--backend", backend]
        assert infer(command) == 0
        picks[backend] = read_copick_folder(tmp_path / backend, CZII_TYPES)["PT_000"]
    a, b = picks["tensorrt"], picks["openvino"]
    assert len(a) == len(b) > 0 and any(name == "enqueue" for name, _ in trt.calls)
    np.testing.assert_allclose(a.xyz_angstrom, b.xyz_angstrom, atol=1e-3)


def test_auto_takes_tensorrt_where_engines_fit_and_says_why(out, trt) -> None:
    entries = read_manifest(out)
    backend, reason = choose_backend("auto", out, entries)
    assert backend == "flax"
    assert "Tesla T4 at hand, but not TensorRT" in reason and f"jaxcryo convert engine {out}" in reason
    assert build_engines(out) == 0
    assert choose_backend("auto", out, entries) == ("tensorrt", "Tesla T4 and TensorRT 10.12.0.36 at hand")
    assert choose_backend("openvino", out, entries) == ("openvino", "as asked for")


def move_engine(built: pathlib.Path, to: pathlib.Path, **record: str) -> None:
    """With what is known of it, some of that changed."""
    facts = built.with_name(built.name + ".json")
    content = json.loads(facts.read_text()) | record
    facts.unlink()
    built.replace(to)
    to.with_name(to.name + ".json").write_text(json.dumps(content))


def test_engines_of_other_machines_are_refused_and_left(out, data, trt, capsys) -> None:
    assert "none was built" in refusal(out, data, capsys)
    assert build_engines(out) == 0
    built = engine_in(out)
    other = out / built.name.replace("10.12.0.36", "10.9.0").replace("sm75", "sm86")
    move_engine(built, other, tensorrt="10.9.0", compute_capability="8.6")
    said = refusal(out, data, capsys)
    assert f"{other.name} is of TensorRT 10.9.0, not 10.12.0.36 and for compute capability 8.6, not 7.5" in said
    assert f"jaxcryo convert engine {out}" in said
    assert build_engines(out) == 0
    assert re.search(rf"{re.escape(other.name)}.*: of TensorRT 10\.9\.0", capsys.readouterr().out)
    assert other.exists() and built.exists()
    move_engine(other, built)
    assert "whatever its name says" in refusal(out, data, capsys)


def test_engines_of_an_earlier_conversion_are_refused_and_replaced(out, data, trt, capsys) -> None:
    assert build_engines(out) == 0
    old = engine_in(out)
    save_weights(out.parent / "a.safetensors", seed=1)
    assert convert(["onnx", str(out.parent / "a.safetensors"), "--out", str(out), "--force"]) == 0
    assert f"{old.name} is of another ONNX file" in refusal(out, data, capsys)
    assert build_engines(out) == 0
    assert f"removed {old.name}: of another ONNX file" in capsys.readouterr().out
    assert engine_in(out) != old and not (out / (old.name + ".json")).exists()


@pytest.mark.slow
def test_a_damaged_engine_is_refused_and_built_again(out, data, trt, capsys) -> None:
    assert build_engines(out) == 0
    engine_in(out).write_bytes(engine_in(out).read_bytes()[:-1])
    assert "is not the file that was built (damaged or replaced)" in refusal(out, data, capsys)
    assert build_engines(out) == 0
    assert "building again" in capsys.readouterr().out
    assert infer(["--engines", str(out), "--data", str(data), "--out", str(out.with_name("p")), "--backend",
                  "tensorrt"]) == 0  # fmt: skip


def test_without_a_gpu_it_says_what_to_run_where(out, capsys) -> None:
    assert build_engines(out) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: no NVIDIA GPU that JAX can use was found") and said.count("\n") == 1
    for part in ("docs/t4.md", "pip install 'jax[cuda12]' 'tensorrt-cu12>=10.12,<12'", "run this there", "openvino"):
        assert part in said


def test_without_tensorrt_or_with_another_one(out, trt, capsys, monkeypatch) -> None:
    from jaxcryo.runtime import tensorrt_target

    trt.version = "12.0.1"
    assert build_engines(out) == 2
    assert "TensorRT 12.0.1 is installed; expected 10.12 or later, before 12" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(tensorrt_target, "jax_gpus", lambda: ("a card",))
    monkeypatch.setattr(sys, "path", [str(out.parent), *sys.path])
    (out.parent / "tensorrt").mkdir()
    assert build_engines(out) == 2
    assert "TensorRT is not installed; run pip install" in capsys.readouterr().err


@pytest.mark.parametrize("options", [("--workspace", "0"), ("--workspace", "nan")])
def test_options_out_of_range(out, options, capsys) -> None:
    assert build_engines(out, *options) == 2
    assert "--workspace is" in capsys.readouterr().err
