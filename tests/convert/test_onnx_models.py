"""`python -m convert onnx` writes what infer.py reads, whole and checked, and says what is wrong."""

from __future__ import annotations

import dataclasses
import pathlib

import jax.numpy as jnp
import numpy as np
import onnx
import pytest

from jaxcryo.cli.convert import main
from jaxcryo.convert import onnx_models
from jaxcryo.convert.onnx_models import OnnxOptions, convert_models
from jaxcryo.domain import CZII_TYPES
from jaxcryo.errors import InputError
from jaxcryo.models import build
from jaxcryo.recipes import recipe
from jaxcryo.runtime.manifest import read_manifest
from jaxcryo.weights import TrainedModel, load_model, save_model

FOUR = OnnxOptions(batch=4)


def model_of(arch: str, threshold: float = 0.3) -> TrainedModel:
    config = recipe(arch, "tiny")
    _, params, stats = build(config.model, seed=0)
    types = tuple(dataclasses.replace(t, threshold=threshold) for t in CZII_TYPES)
    return TrainedModel(
        config=config, types=types, spacing_angstrom=10.012444, params=params, stats=stats, source="a test"
    )


@pytest.fixture
def run_folder(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "runs" / "yu4u-tiny-fold0"
    save_model(folder / "best.safetensors", model_of("yu4u", 0.4))
    return folder


def test_two_models_and_what_is_known_of_them(
    run_folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "tattaka-fold2.safetensors"
    save_model(other, model_of("tattaka", 0.2))
    out = tmp_path / "out"
    assert main(["onnx", str(run_folder), str(other), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"next: jaxcryo convert check {out}" in said
    assert f"then: jaxcryo infer --engines {out} --data DIR" in said
    first, second = read_manifest(out)
    assert (first.name, first.arch, first.size, first.precision) == ("yu4u-tiny-fold0", "yu4u", "tiny", "float32")
    assert second.name == "tattaka-fold2"
    assert [e.types[0].threshold for e in (first, second)] == [0.4, 0.2]
    config = recipe("yu4u", "tiny")
    assert first.model == config.model
    assert (first.patch_zyx, first.stride_zyx) == (config.model.patch_zyx, config.inference.stride_zyx)
    assert first.batch == config.inference.batch
    assert first.source == f"{run_folder.name}/best.safetensors: a test"
    assert sorted(p.name for p in out.iterdir()) == [
        "engines.json", "tattaka-fold2.onnx", "tattaka-fold2.safetensors", "yu4u-tiny-fold0.onnx",
        "yu4u-tiny-fold0.safetensors",
    ]  # fmt: skip
    weights = load_model(out / first.weights_file)
    for name, array in model_of("yu4u").params.items():
        np.testing.assert_array_equal(weights.params[name], array)


def test_float16_halves_both_files(run_folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    name, model = "encoder.stages.0.blocks.0.gamma", model_of("yu4u")
    save_model(
        run_folder / "best.safetensors",
        dataclasses.replace(model, params=model.params | {name: jnp.full(8, 1e-6, jnp.float32)}),
    )
    (wide,) = convert_models([run_folder], tmp_path / "wide", FOUR)
    (narrow,) = convert_models([run_folder], tmp_path / "narrow", dataclasses.replace(FOUR, precision="float16"))
    for file in ("onnx_file", "weights_file"):
        before, after = (
            (tmp_path / n / getattr(e, file)).stat().st_size for n, e in (("wide", wide), ("narrow", narrow))
        )
        assert after < 0.7 * before
    # timm's fresh layer scale of 1e-6 has one digit in float16.
    gamma = load_model(tmp_path / "narrow" / narrow.weights_file).params[name]
    np.testing.assert_array_equal(gamma, np.full(8, 1e-6, np.float32))


def test_last_weights_serve_where_there_are_no_best_ones(run_folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (run_folder / "best.safetensors").rename(run_folder / "last.safetensors")
    (entry,) = convert_models([run_folder], tmp_path / "out", OnnxOptions(batch=3, upsampling="resize"))
    assert entry.name == "yu4u-tiny-fold0"
    assert "last.safetensors" in entry.source
    model = onnx.load(tmp_path / "out" / entry.onnx_file)
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [3, *entry.patch_zyx]
    assert any(n.op_type == "Resize" for n in model.graph.node)


def test_models_of_one_name_are_numbered(run_folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    twin = tmp_path / "other" / "yu4u-tiny-fold0"
    save_model(twin / "best.safetensors", model_of("yu4u"))
    entries = convert_models([run_folder, twin], tmp_path / "out", FOUR)
    assert [e.name for e in entries] == ["yu4u-tiny-fold0", "yu4u-tiny-fold0-2"]
    assert len(read_manifest(tmp_path / "out")) == 2


def test_engines_are_replaced_by_force_only(run_folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "out"
    convert_models([run_folder], out, FOUR)
    (out / "notes.txt").write_text("mine")
    other = tmp_path / "b.safetensors"
    save_model(other, model_of("yu4u"))
    assert main(["onnx", str(other), "--out", str(out)]) == 2
    assert [e.name for e in read_manifest(out)] == ["yu4u-tiny-fold0"]
    assert main(["onnx", str(other), "--out", str(out), "--force"]) == 0
    assert [e.name for e in read_manifest(out)] == ["b"]
    assert sorted(p.name for p in out.iterdir()) == ["b.onnx", "b.safetensors", "engines.json", "notes.txt"]


def test_models_of_different_particles(run_folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    model = model_of("yu4u")
    types = (dataclasses.replace(CZII_TYPES[0], name="ferritin"), *CZII_TYPES[1:])
    save_model(tmp_path / "b.safetensors", dataclasses.replace(model, types=types))
    with pytest.raises(InputError, match=r"b\.safetensors.*ferritin"):
        convert_models([run_folder, tmp_path / "b.safetensors"], tmp_path / "out", FOUR)
    assert not (tmp_path / "out").exists()


def test_a_spacing_that_nobody_knows(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "a.safetensors"
    save_model(file, dataclasses.replace(model_of("yu4u"), spacing_angstrom=None))
    with pytest.raises(InputError, match=r"a\.safetensors.*--voxel-spacing"):
        convert_models([file], tmp_path / "out", FOUR)
    options = dataclasses.replace(FOUR, spacing_angstrom=7.84)
    (entry,) = convert_models([file], tmp_path / "out", options)
    assert entry.spacing_angstrom == 7.84
    assert load_model(tmp_path / "out" / entry.weights_file).spacing_angstrom == 7.84


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (OnnxOptions(batch=0), r"--batch.*\b0\b.*\b1\b"),
        (OnnxOptions(spacing_angstrom=-1), r"--voxel-spacing.*-1"),
    ],
)
def test_options_out_of_range(run_folder: pathlib.Path, tmp_path: pathlib.Path, options: OnnxOptions,
                              message: str) -> None:  # fmt: skip
    with pytest.raises(InputError, match=message):
        convert_models([run_folder], tmp_path / "out", options)


def test_sources_that_cannot_be_used(run_folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"none\.safetensors"):
        convert_models([tmp_path / "none.safetensors"], out, FOUR)
    with pytest.raises(InputError, match=r"yu4u-tiny-fold0/best\.safetensors"):
        convert_models([run_folder, run_folder / "best.safetensors"], out, FOUR)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty.*best\.safetensors.*last\.safetensors"):
        convert_models([tmp_path / "empty"], out, FOUR)
    file = tmp_path / "mine.safetensors"
    save_model(file, model_of("yu4u"))
    with pytest.raises(InputError, match=r"mine\.safetensors"):
        convert_models([file], tmp_path, FOUR)


def test_larger_windows_overlap_by_as_many_voxels(run_folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (own,) = convert_models([run_folder], tmp_path / "own", FOUR)
    options = dataclasses.replace(FOUR, batch=1, window_zyx=(32, 96, 128))
    (entry,) = convert_models([run_folder], tmp_path / "out", options)
    overlap = [p - s for p, s in zip(own.patch_zyx, own.stride_zyx, strict=True)]
    assert entry.patch_zyx == entry.model.patch_zyx == (32, 96, 128)
    assert [p - s for p, s in zip(entry.patch_zyx, entry.stride_zyx, strict=True)] == overlap
    graph = onnx.load(tmp_path / "out" / entry.onnx_file).graph
    assert [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim] == [1, 32, 96, 128]


@pytest.mark.parametrize(("window", "message"), [((16, 70, 64), "multiple"), ((4, 64, 64), "4")])
def test_windows_that_the_network_cannot_take(
    run_folder: pathlib.Path, tmp_path: pathlib.Path, window: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        convert_models([run_folder], tmp_path / "out", dataclasses.replace(FOUR, window_zyx=window))
    assert not list((tmp_path / "out").glob("*.onnx"))


def test_every_model_is_loaded_once(
    run_folder: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "b.safetensors"
    save_model(other, model_of("yu4u"))
    loaded = []
    monkeypatch.setattr(onnx_models, "load_model", lambda file: [loaded.append(file), load_model(file)][1])
    convert_models([run_folder, other], tmp_path / "out", FOUR)
    assert loaded == [run_folder / "best.safetensors", other]
