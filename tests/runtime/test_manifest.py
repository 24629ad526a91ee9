"""What is written to engines.json is read back, and everything else is refused with a reason."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from jaxcryo.config import InferenceConfig, IntensityConfig, NetworkConfig, TrainConfig
from jaxcryo.domain import CZII_TYPES
from jaxcryo.errors import InputError
from jaxcryo.models.tattaka.config import TattakaConfig
from jaxcryo.models.yu4u.config import Yu4uConfig
from jaxcryo.recipes import recipe
from jaxcryo.runtime.manifest import Int8Model, ModelEntry, file_sha256, read_manifest, write_manifest
from jaxcryo.serialize import from_plain, to_plain


def entry_in(folder: pathlib.Path, name: str = "yu4u-fold2", **changes: Any) -> ModelEntry:
    (folder / f"{name}.onnx").write_bytes(f"graph of {name}".encode())
    (folder / f"{name}.safetensors").write_bytes(f"weights of {name}".encode())
    entry = ModelEntry(
        name=name,
        size="tiny",
        model=recipe("yu4u", "tiny").model,
        onnx_file=f"{name}.onnx",
        onnx_sha256=file_sha256(folder / f"{name}.onnx"),
        weights_file=f"{name}.safetensors",
        weights_sha256=file_sha256(folder / f"{name}.safetensors"),
        precision="bfloat16",
        types=tuple(dataclasses.replace(t, threshold=0.125) for t in CZII_TYPES),
        intensity=IntensityConfig(rule="tomogram"),
        spacing_angstrom=10.012444,
        inference=InferenceConfig(stride_zyx=(8, 24, 24), batch=4),
        source="runs/yu4u/fold2",
    )
    return dataclasses.replace(entry, **changes)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    tattaka = recipe("tattaka", "small").model
    write_manifest(tmp_path, [entry_in(tmp_path), entry_in(tmp_path, "tattaka-fold0", model=tattaka)])
    return tmp_path


def test_what_is_written_is_read(folder: pathlib.Path) -> None:
    first, second = read_manifest(folder)
    assert first == entry_in(folder)
    assert second.model == recipe("tattaka", "small").model
    assert json.loads((folder / "engines.json").read_text())["format"] == 2


def test_an_int8_model_is_kept_and_its_file_checked(folder: pathlib.Path) -> None:
    first, second = read_manifest(folder)
    assert '"int8": null' in (folder / "engines.json").read_text()
    int8 = Int8Model(
        onnx_file="a-int8.onnx", onnx_sha256="0", calibrated_on="12 windows", float_layers=("head",),
        f4_change=-0.002, agreement=0.98, cpu="A CPU", speedup=1.5,
    )  # fmt: skip
    (folder / int8.onnx_file).write_bytes(b"integers")
    int8 = dataclasses.replace(int8, onnx_sha256=file_sha256(folder / int8.onnx_file))
    entries = (dataclasses.replace(first, int8=int8), second)
    write_manifest(folder, entries)
    assert read_manifest(folder) == entries
    assert (int8.onnx_file, int8.onnx_sha256) in entries[0].files and len(entries[1].files) == 2
    (folder / int8.onnx_file).write_bytes(b"others")
    with pytest.raises(InputError, match=r"a-int8\.onnx"):
        read_manifest(folder)


def test_a_folder_of_before_there_was_int8_is_read(folder: pathlib.Path) -> None:
    data = json.loads((folder / "engines.json").read_text())
    for model in data["models"]:
        del model["int8"]
    (folder / "engines.json").write_text(json.dumps(data))
    assert [entry.int8 for entry in read_manifest(folder)] == [None, None]


def test_nothing_else_is_left_in_the_folder(folder: pathlib.Path) -> None:
    assert sorted(p.suffix for p in folder.iterdir()) == [".json", ".onnx", ".onnx", ".safetensors", ".safetensors"]


def edited(change: Callable[[Any], Any]) -> Callable[[pathlib.Path], Any]:
    def edit(folder: pathlib.Path) -> None:
        path = folder / "engines.json"
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "engines.json").unlink(), r"has no engines\.json.*convert"),
        (lambda f: (f / "engines.json").write_text("{"), r"is not JSON"),
        (lambda f: (f / "engines.json").write_text("[]"), r"engines\.json: "),
        (lambda f: (f / "yu4u-fold2.onnx").unlink(), r"yu4u-fold2\.onnx: is missing"),
        (lambda f: (f / "yu4u-fold2.onnx").write_bytes(b"x"), r"does not match engines\.json: convert"),
        (lambda f: (f / "tattaka-fold0.safetensors").write_bytes(b""), r"does not match engines\.json: convert"),
        (edited(lambda d: d.update(format=3)), "format is 3; expected 2"),
        (edited(lambda d: d.update(models=[])), "lists no model"),
        (edited(lambda d: d["models"][0].update(color=1)), r"models\[0\]\.color is not a known field"),
        (edited(lambda d: d["models"][1].pop("source")), r"models\[1\]\.source is missing"),
        (
            edited(lambda d: d["models"][1]["inference"].update(batch=1.5)),
            r"inference\.batch: 1\.5 is not a whole number",
        ),
        (edited(lambda d: d["models"][0]["model"].update(arch="unet")), "expected one of yu4u, tattaka"),
        (edited(lambda d: d["models"][0]["model"]["encoder"].update(kernel="big")), r"model\.encoder\.kernel: 'big'"),
        (edited(lambda d: d["models"][0].update(precision="int4")), r"models\[0\]\.precision"),
        (edited(lambda d: d["models"][0].update(onnx_file="../x.onnx")), "not the name of a file in this folder"),
        (edited(lambda d: d["models"][0]["types"].pop()), "5 particle types for 6 classes"),
        (edited(lambda d: d["models"][0]["types"].reverse()), "need the same particle types in the same order"),
        (edited(lambda d: d["models"][0]["types"][0].update(radius_angstrom=-1)), "the radius is -1"),
    ],
)
def test_a_damaged_folder_is_refused(folder: pathlib.Path, damage: Callable[[pathlib.Path], Any], message: str) -> None:
    damage(folder)
    with pytest.raises(InputError, match=message):
        read_manifest(folder)


def test_a_folder_that_is_not_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read_manifest(tmp_path / "out")


def test_thresholds_may_differ_between_models(tmp_path: pathlib.Path) -> None:
    write_manifest(tmp_path, [entry_in(tmp_path), entry_in(tmp_path, "other", types=CZII_TYPES)])
    assert [e.types[0].threshold for e in read_manifest(tmp_path)] == [0.125, 0.3]


def test_models_that_do_not_belong_together_are_not_written(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="named twice"):
        write_manifest(tmp_path, [entry_in(tmp_path), entry_in(tmp_path)])
    with pytest.raises(InputError, match="same particle types"):
        write_manifest(tmp_path, [entry_in(tmp_path), entry_in(tmp_path, "other", types=CZII_TYPES[::-1])])
    assert not (tmp_path / "engines.json").exists()


def test_format_1_wrote_window_stride_and_batch_twice(folder: pathlib.Path) -> None:
    """The copies beside the records were those in use, as with `--batch`."""
    expected = read_manifest(folder)

    def as_before(data: Any) -> None:
        data["format"], data["engines"] = 1, data.pop("models")
        for entry in data["engines"]:
            inference, network = entry["inference"], entry["model"]
            entry |= {"arch": network["arch"], "patch_zyx": network["patch_zyx"]}
            entry |= {"stride_zyx": inference["stride_zyx"], "batch": inference["batch"]}
            inference |= {"stride_zyx": [1, 2, 3], "batch": 9}

    edited(as_before)(folder)
    assert read_manifest(folder) == expected
    edited(lambda d: d["engines"][1].update(arch="yu4u"))(folder)
    with pytest.raises(InputError, match="not a known field"):
        read_manifest(folder)


@pytest.mark.parametrize("model", [Yu4uConfig(), TattakaConfig(classes=2)])
def test_a_recipe_survives_json(model: NetworkConfig) -> None:
    config = TrainConfig(arch=model.arch, size="paper", model=model)
    assert from_plain(TrainConfig, json.loads(json.dumps(to_plain(config))), "recipe") == config


def test_a_recipe_is_of_one_architecture() -> None:
    with pytest.raises(InputError, match="is yu4u, its network tattaka's"):
        TrainConfig(arch="yu4u", size="paper", model=TattakaConfig())


def test_all_faults_of_a_record_are_named_at_once() -> None:
    with pytest.raises(InputError, match=r"^x\.json: rule.*; mean: 'a' is not a number; size is not a known field$"):
        from_plain(IntensityConfig, {"rule": "none", "mean": "a", "size": 3}, "x.json")
