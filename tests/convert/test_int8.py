"""`convert quantize` writes integers where they find what floats find, and says what it measured."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from jaxcryo.cli.convert import main
from jaxcryo.cli.infer import main as infer
from jaxcryo.convert import int8_graph, quantize
from jaxcryo.convert.calibration_windows import phantom_calibration, tomogram_calibration
from jaxcryo.convert.comparison import onnxruntime_answer, phantom_windows
from jaxcryo.convert.int8_graph import Calibration, Layer, quantizable
from jaxcryo.convert.onnx_models import OnnxOptions, convert_models
from jaxcryo.convert.precisions import PickedPhantoms
from jaxcryo.convert.quantize import LayerReport, float32_graph, layer_rows, layers_to_keep
from jaxcryo.domain import CZII_TYPES, Picks, Volume, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.metric import score
from jaxcryo.models import build
from jaxcryo.phantom import PhantomConfig, write_dataset
from jaxcryo.recipes import recipe
from jaxcryo.runtime.manifest import ModelEntry, read_manifest, write_manifest
from jaxcryo.runtime.openvino import cpu_described
from jaxcryo.weights import TrainedModel, save_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with an untrained tiny network, whose file is in float16."""
    folder = tmp_path_factory.mktemp("int8")
    config = recipe("yu4u", "tiny")
    _, params, stats = build(config.model, seed=0)
    model = TrainedModel(
        config=config, types=CZII_TYPES, spacing_angstrom=10.012444, params=params, stats=stats, source="a test"
    )
    save_model(folder / "tiny.safetensors", model)
    convert_models([folder / "tiny.safetensors"], folder / "out", OnnxOptions(precision="float16", batch=2))
    return folder / "out"


@pytest.fixture(scope="module")
def entry(models: pathlib.Path) -> ModelEntry:
    return read_manifest(models)[0]


@pytest.fixture(scope="module")
def graph(models: pathlib.Path, entry: ModelEntry) -> onnx.ModelProto:
    return float32_graph(models, entry)


@pytest.fixture(scope="module")
def calibration(graph: onnx.ModelProto, entry: ModelEntry) -> Calibration:
    return Calibration(graph, phantom_windows(entry, 3), batch=entry.batch)


def test_first_last_and_depthwise_convolutions_are_not_quantized(graph: onnx.ModelProto) -> None:
    layers = quantizable(graph)
    nodes = [node for layer in layers for node in layer.nodes]
    assert len(nodes) == len(set(nodes)) > 20
    assert not {"encoder.stages.0/Conv", "encoder.stages.0.blocks.0/Conv", "head/Conv"} & set(nodes)
    assert {"encoder.stages.0.blocks.0/Conv_2", "decoder.2.refine/Conv"} <= set(nodes)
    by_name = {layer.name: layer for layer in layers}
    # The phases of an upsampled input are one layer, the skip's convolution another.
    assert by_name["decoder.2.up/Conv"].nodes[-1] == "decoder.2.up/Conv_8"
    assert by_name["decoder.2.up/Conv_9"].nodes == ("decoder.2.up/Conv_9",)
    assert 0.5 < sum(layer.share for layer in layers) < 1


def test_the_form_is_the_one_that_openvino_and_tensorrt_read(graph: onnx.ModelProto, calibration: Calibration) -> None:
    layers = quantizable(graph)
    model = calibration.quantized(layers)
    onnx.checker.check_model(model)
    assert {o.domain for o in model.opset_import} == {""}
    assert {p.key: p.value for p in model.metadata_props}["precision"] == "int8"
    constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    producers = {output: n for n in model.graph.node for output in n.output}
    quantized = {name for layer in layers for name in layer.nodes}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = constants[node.input[2]]
            assert zero.dtype == (np.int32 if "bias" in node.name else np.int8) and not zero.any()
        if node.op_type != "Conv":
            continue
        sources = [producers[i].op_type for i in node.input[:2] if i in producers]
        assert sources == (["DequantizeLinear"] * 2 if node.name in quantized else sources[:1]), node.name
        if node.name in quantized:
            activation, weight = (producers[i] for i in node.input[:2])
            assert constants[activation.input[1]].ndim == 0
            kernel = constants[weight.input[0]]
            assert constants[weight.input[1]].shape == kernel.shape[:1]
            assert np.abs(kernel.astype(int)).max() <= 64
            if len(node.input) > 2:
                assert constants[node.input[2]].dtype == np.float32


def test_it_answers_nearly_as_float_does(
    graph: onnx.ModelProto, calibration: Calibration, entry: ModelEntry, tmp_path: pathlib.Path
) -> None:
    before = graph.SerializeToString()
    windows = phantom_windows(entry, 2)
    expected = onnxruntime_answer(before)(windows)
    layers = quantizable(graph)

    def error(chosen: list[Layer]) -> float:
        found = onnxruntime_answer(calibration.quantized(chosen).SerializeToString())(windows)
        return float(np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()))

    one, every = error([layers[0]]), error(list(layers))
    assert 0 < one < every < 0.1
    assert graph.SerializeToString() == before


def test_windows_of_phantoms_show_particles_ice_and_borders(entry: ModelEntry) -> None:
    windows = phantom_calibration(entry, phantoms=2)
    assert windows.shape[1:] == entry.patch_zyx and windows.dtype == np.float32
    assert 10 <= len(windows) <= 2 * (len(entry.types) + 6)
    np.testing.assert_array_equal(windows, phantom_calibration(entry, phantoms=2))
    mirrored = (windows[:, 0] == windows[:, 4]).all(axis=(1, 2))  # two slices lie beyond the first one of a corner
    assert mirrored.any() and not mirrored.all()
    least = windows.min(axis=(1, 2, 3))
    assert least.min() < 1.2 * np.median(least)  # some hold darker things than most


def test_windows_of_tomograms_are_spread_over_them_and_hold_data(entry: ModelEntry) -> None:
    grid = VoxelGrid(shape_zyx=(32, 96, 96), spacing_zyx_angstrom=(10.0,) * 3)
    voxels = np.random.default_rng(0).normal(size=grid.shape_zyx).astype(np.float32) * 7e-6
    voxels[:, :, 40:] = 0
    volumes = [Volume(name=n, voxels=voxels, grid=grid) for n in ("a", "b")]
    windows = tomogram_calibration(entry, volumes, windows=16)
    assert 4 <= len(windows) < 16
    assert ((windows != 0).mean(axis=(1, 2, 3)) >= 0.5).all()
    voxels[:, :, 20:] = 0
    with pytest.raises(InputError, match="a, b"):
        tomogram_calibration(entry, volumes, windows=16)


def test_the_layers_that_hurt_most_stay_in_float() -> None:
    def report(name: str, error: float) -> LayerReport:
        layer = Layer(name=name, nodes=(name,), share=0.25)
        return LayerReport(layer=layer, error=error, float_seconds=0.002, int8_seconds=None)

    reports = [report("a", 0.01), report("b", 0.3), report("c", 0.2)]
    kept = layers_to_keep(reports, 2)
    assert [r.layer.name for r in kept] == ["b", "c"]
    rows = layer_rows(reports, kept)
    assert [row[0] for row in rows[1:]] == ["b", "c", "a"]
    assert [row[-1] for row in rows[1:]] == ["stays in float"] * 2 + ["int8"]
    assert rows[1][3:5] == ("2.0 ms", "")


def test_without_onnxruntime_it_says_what_to_install(
    graph: onnx.ModelProto, entry: ModelEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8_graph.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install onnxruntime"):
        Calibration(graph, phantom_windows(entry, 1), batch=entry.batch)


def test_layers_go_back_to_float_until_as_much_is_found(
    models: pathlib.Path, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a network of four layers, of which two spoil it."""
    folder = pathlib.Path(shutil.copytree(models, tmp_path / "out"))
    (entry,) = read_manifest(folder)
    tried: list[list[str]] = []
    spoilers = {"b": 0.3, "d": 0.2}

    class Doubled:
        def __init__(self, *_: object, **__: object) -> None: ...

        def quantized(self, layers: list[Layer]) -> onnx.ModelProto:
            tried.append([layer.name for layer in layers])
            return onnx.ModelProto()

    layers = [Layer(name=n, nodes=(n,), share=0.2) for n in "abcd"]
    reports = [
        LayerReport(layer=layer, error=spoilers.get(layer.name, 0.01), float_seconds=None, int8_seconds=None)
        for layer in layers
    ]
    xyz = np.random.default_rng(0).uniform(0, 1e5, (60, 3))
    truth = Picks(run="p", types=entry.types, xyz_angstrom=xyz, type_index=np.arange(60) % 6)

    def pick(place: pathlib.Path, entries: list[ModelEntry], *_: object, **__: object) -> tuple[PickedPhantoms]:
        spoiled = entries[0].precision == "int8" and bool(spoilers.keys() & set(tried[-1]))
        found = {"p": truth.select(np.arange(60) < (30 if spoiled else 60))}
        return (PickedPhantoms(score=score({"p": truth}, found, entry.types), found=found, seconds=1.0),)

    monkeypatch.setattr(quantize, "Calibration", Doubled)
    monkeypatch.setattr(quantize, "quantizable", lambda graph: layers)
    monkeypatch.setattr(quantize, "_measured_layers", lambda *_: reports)
    monkeypatch.setattr(quantize, "phantoms_for", lambda *_: [])
    monkeypatch.setattr(quantize, "pick_phantoms", pick)
    monkeypatch.setattr(quantize, "phantom_calibration", lambda *_, **__: np.zeros((5, 1, 1, 1), np.float32))
    monkeypatch.setattr(quantize, "seconds_per_window", lambda *_: {"float32": 0.3, "int8": 0.2})
    assert main(["quantize", str(folder)]) == 0
    assert tried == [["a", "b", "c", "d"], ["a", "c", "d"], ["a", "c"]]
    said = capsys.readouterr().out
    assert said.count("stays in float") == 2
    (entry,) = read_manifest(folder)
    assert entry.int8 is not None and set(entry.int8.float_layers) == {"b", "d"}
    assert (entry.int8.f4_change, entry.int8.agreement, entry.int8.speedup) == (0, 1, pytest.approx(1.5))
    assert main(["quantize", str(folder)]) == 0
    assert "--force" in capsys.readouterr().out and len(tried) == 3
    # Where every layer spoils it, the folder keeps what it has, and that is said.
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    spoilers.update(a=0.01, c=0.01)
    capsys.readouterr()
    assert main(["quantize", str(folder), "--force"]) == 1
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before and read_manifest(folder)
    said = capsys.readouterr().out
    assert entry.int8.onnx_file in said and "check --int8" in said
    # The same where it fails once the new file is there, which is not the old one.
    for layer in "ac":
        del spoilers[layer]
    monkeypatch.setattr(Doubled, "quantized", lambda *_: onnx.ModelProto(producer_name="again"))
    monkeypatch.setattr(quantize, "seconds_per_window", lambda *_: 1 / 0)
    tried.append(["a", "c"])
    with pytest.raises(ZeroDivisionError):
        main(["quantize", str(folder), "--force"])
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    # What a run that was killed has left goes with the next one; what others wrote stays.
    left = folder / "tiny-int8-e3b0c442.onnx"  # the SHA-256 of nothing
    foreign = folder / "tiny-int8-00000000.onnx"
    left.touch()
    foreign.touch()
    monkeypatch.setattr(quantize, "seconds_per_window", lambda *_: {"float32": 0.3, "int8": 0.2})
    assert main(["quantize", str(folder), "--force"]) == 0
    (again,) = read_manifest(folder)
    assert again.int8 is not None and again.int8.onnx_file != entry.int8.onnx_file
    assert {p.name for p in folder.glob("*int8*")} == {again.int8.onnx_file, foreign.name}


@pytest.mark.slow
def test_a_model_is_quantized_checked_and_used(
    models: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pathlib.Path(shutil.copytree(models, tmp_path / "out"))
    size = ["--shape", "16", "64", "64"]
    assert main(["quantize", str(folder), "--phantoms", "1", *size]) == 0
    said = capsys.readouterr().out
    assert "decoder.2.refine/Conv" in said and "too little to tell" in said
    (entry,) = read_manifest(folder)
    assert entry.int8 is not None and entry.int8.f4_change is None and entry.int8.speedup > 0
    assert entry.precision == "float16"
    data = tmp_path / "data"
    write_dataset(data, PhantomConfig(shape_zyx=(16, 80, 80)), runs=0, test_runs=1)
    command = ["--engines", str(folder), "--data", str(data), "--backend", "openvino", "--no-report"]
    assert infer([*command, "--out", str(tmp_path / "auto")]) == 0
    assert "too little to compare" in capsys.readouterr().out
    assert infer([*command, "--out", str(tmp_path / "int8"), "--precision", "int8"]) == 0
    assert "in int8 (as asked for)" in capsys.readouterr().out
    assert infer([*command, "--out", str(tmp_path / "flax"), "--precision", "int8", "--backend", "flax"]) == 2
    assert "openvino" in capsys.readouterr().err
    assert (
        main(["quantize", str(folder), "--data", str(data), "--windows", "4", "--phantoms", "1", *size, "--force"]) == 0
    )
    again = read_manifest(folder)[0].int8
    assert again is not None and "4 windows of" in again.calibrated_on
    assert again.onnx_sha256 != entry.int8.onnx_sha256
    assert [p.name for p in folder.glob("*-int8-*.onnx")] == [again.onnx_file]
    write_manifest(
        folder, [dataclasses.replace(read_manifest(folder)[0], int8=dataclasses.replace(again, cpu="Other"))]
    )
    assert main(["check", str(folder), "--windows", "1", "--int8", "1", *size]) == 0
    measured = read_manifest(folder)[0].int8
    assert measured is not None and measured.cpu == cpu_described()
    said = capsys.readouterr().out
    assert "openvino int8" in said and "float32" in said and "ms a window" in said
    # A model that is written anew has no int8 twin, and none is left behind.
    convert_models([models.parent / "tiny.safetensors"], folder, OnnxOptions(batch=2), force=True)
    assert sorted(p.name for p in folder.iterdir()) == ["engines.json", "tiny.onnx", "tiny.safetensors"]
