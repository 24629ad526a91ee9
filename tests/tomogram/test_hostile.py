"""Whatever tomograms, masks, projects, engines and settings hold, reading them gives something sound or an InputError,
soon, in little memory, and touches nothing.

`pytest tests/io/test_hostile.py --hypothesis-profile fuzz` looks longer. Picks: test_formats_hostile.py.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import shutil
import tempfile
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import mrcfile
import numcodecs
import numpy as np
import pytest
import zarr
import zarr.codecs
from damage import CHANGES, FUZZ, damages, snapshot, spoil, with_other_values
from hypothesis import currently_in_test_context, event, given
from hypothesis import strategies as st

from jaxcryo.config import InferenceConfig, IntensityConfig
from jaxcryo.domain import CZII_TYPES, Picks, Volume, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.models import build
from jaxcryo.picks.copick_json import write_copick_picks
from jaxcryo.picks.thresholds import read_thresholds
from jaxcryo.project.copick import open_project, project_picks, project_runs
from jaxcryo.project.mask import inside, open_mask
from jaxcryo.project.particles import read_particles
from jaxcryo.recipes import recipe
from jaxcryo.runtime.manifest import ModelEntry, file_sha256, read_manifest, write_manifest
from jaxcryo.tomogram.volumes import open_volume
from jaxcryo.weights import TrainedModel, load_model, save_model

SHAPE = (6, 20, 18)
VOXELS = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
GRID = VoxelGrid(shape_zyx=SHAPE, spacing_zyx_angstrom=(10.0,) * 3)
MEMORY = 64 * 2**20
TYPES = CZII_TYPES[:2]
PICKS = Picks(run="R1", types=TYPES, xyz_angstrom=np.array([[50.0, 50, 30]]), type_index=np.array([1]))


@dataclasses.dataclass(frozen=True)
class Reader:
    """How a sound input is made, which of its files are spoiled, and how it is read to its end."""

    make: Callable[[pathlib.Path], None]
    files: tuple[str, ...]
    read: Callable[[pathlib.Path], None]


def _mrc(folder: pathlib.Path) -> None:
    with mrcfile.new(folder / "a.mrc") as mrc:
        mrc.set_data(VOXELS)
        mrc.voxel_size = 10.0


def _zarr(version: int, codec: Any, **options: Any) -> Callable[[pathlib.Path], None]:
    def make(folder: pathlib.Path) -> None:
        group: Any = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=version)  # type: ignore[arg-type]
        array = group.create_array("0", shape=SHAPE, chunks=(3, 10, 9), dtype="float32", compressors=codec, **options)
        array[:] = VOXELS
        axes = [{"name": a, "type": "space", "unit": "angstrom"} for a in "zyx"]
        transforms = [{"type": "scale", "scale": [10.0] * 3}, {"type": "translation", "translation": [0.0] * 3}]
        datasets = [{"path": "0", "coordinateTransformations": transforms}] * 2
        multiscales = [{"version": "0.4", "axes": axes, "datasets": datasets}]
        group.attrs.update({"ome": {"multiscales": multiscales}} if version == 3 else {"multiscales": multiscales})

    return make


def _read_volume(path: pathlib.Path, level: int = 0) -> None:
    volume = open_volume(path, level=level)
    for name, value in (("spacing", volume.grid.spacing_zyx_angstrom), ("origin", volume.grid.origin_xyz_angstrom)):
        assert np.isfinite(value).all(), name
    if np.prod(volume.grid.shape_zyx, dtype=float) < 1e6:
        assert volume.load().shape == volume.grid.shape_zyx


def _read_zarr(folder: pathlib.Path) -> None:
    _read_volume(folder / "a.zarr")
    _read_volume(folder / "a.zarr", level=1)


def _read_mask(folder: pathlib.Path) -> None:
    mask = open_mask(folder / "a.mrc", "R1", GRID)
    assert len(inside(PICKS, mask)) in (0, 1)


def _project(folder: pathlib.Path) -> None:
    _zarr(2, None)(folder)
    run = folder / "static/ExperimentRuns/R1/VoxelSpacing10.000"
    run.mkdir(parents=True)
    (folder / "a.zarr").rename(run / "denoised.zarr")
    write_copick_picks(PICKS, folder / "overlay", user_id="curator", session_id="1")
    objects = [{"name": t.name, "is_particle": True, "label": i, "radius": t.radius_angstrom, "color": [1, 2, 3, 255],
                "pdb_id": None, "metadata": {"score_weight": 1, "score_threshold": 0.2}}
               for i, t in enumerate(TYPES)]  # fmt: skip
    content = {"config_type": "filesystem", "name": "x", "version": "1", "pickable_objects": objects}
    content |= {"overlay_root": f"local://{folder}/overlay", "static_root": f"local://{folder}/static"}
    (folder / "config.json").write_text(json.dumps(content))


def _read_project(folder: pathlib.Path) -> None:
    types = read_particles(folder / "config.json")
    project = open_project(folder / "config.json")
    for run in project_runs(project):
        open_volume(run.volume_path, name=run.name).load()
        picks = project_picks(project, run.name, types)
        assert np.isfinite(picks.xyz_angstrom).all()


def _particles(folder: pathlib.Path) -> None:
    (folder / "a.toml").write_text(
        "[ribosome]\nradius_angstrom = 150\nweight = 2.0\nthreshold = 0.5\ncolor = [1, 2, 3]\n\n"
        '["apo-ferritin"]\nradius_angstrom = 60.5 # small\nsigma_angstrom = 40\n'
    )


def _read_particles(folder: pathlib.Path) -> None:
    for kind in read_particles(folder / "a.toml"):
        assert np.isfinite([kind.radius_angstrom, kind.weight, kind.threshold]).all()
        assert "/" not in kind.name and len(kind.name) <= 200


def _thresholds_file(folder: pathlib.Path) -> None:
    (folder / "a.json").write_text(json.dumps({"ribosome": 0.5, "apo-ferritin": 0.25}))


def _read_thresholds(folder: pathlib.Path) -> None:
    assert np.isfinite(list(read_thresholds(str(folder / "a.json")).values())).all()


def _manifest(folder: pathlib.Path) -> None:
    (folder / "a.onnx").write_bytes(b"graph")
    (folder / "a.safetensors").write_bytes(b"weights")
    entry = ModelEntry(
        name="a", size="tiny", model=recipe("yu4u", "tiny", classes=2).model, onnx_file="a.onnx",
        onnx_sha256=file_sha256(folder / "a.onnx"), weights_file="a.safetensors",
        weights_sha256=file_sha256(folder / "a.safetensors"), precision="float32", types=TYPES,
        intensity=IntensityConfig(), spacing_angstrom=10.0, inference=InferenceConfig(), source="test", skewness=-1.0,
    )  # fmt: skip
    write_manifest(folder, [entry])


def _read_manifest(folder: pathlib.Path) -> None:
    for entry in read_manifest(folder):
        assert 0 < entry.spacing_angstrom < np.inf and len(entry.types) == entry.model.classes
        assert (folder / entry.onnx_file).parent == folder


@functools.cache
def _model() -> TrainedModel:
    config = recipe("yu4u", "tiny", classes=2)
    _, params, stats = build(config.model)
    return TrainedModel(config=config, types=TYPES, spacing_angstrom=10.0, params=params, stats=stats, source="test")


def _weights(folder: pathlib.Path) -> None:
    save_model(folder / "a.safetensors", _model())


def _read_weights(folder: pathlib.Path) -> None:
    model = load_model(folder / "a.safetensors")
    assert model.spacing_angstrom is None or 0 < model.spacing_angstrom < np.inf
    assert isinstance(model.source, str)


V2, V3 = ("a.zarr/.zattrs", "a.zarr/0/.zarray", "a.zarr/0/0.0.0"), ("a.zarr/zarr.json", "a.zarr/0/zarr.json")
READERS = {
    "mrc": Reader(_mrc, ("a.mrc",), lambda folder: _read_volume(folder / "a.mrc")),
    "zarr 2, blosc": Reader(_zarr(2, numcodecs.Blosc()), V2, _read_zarr),
    "zarr 2, zlib": Reader(_zarr(2, numcodecs.Zlib()), V2, _read_zarr),
    "zarr 3, zstd": Reader(_zarr(3, zarr.codecs.ZstdCodec()), (*V3, "a.zarr/0/c/0/0/0"), _read_zarr),
    "zarr 3, gzip": Reader(_zarr(3, zarr.codecs.GzipCodec()), (*V3, "a.zarr/0/c/0/0/0"), _read_zarr),
    "zarr 3, shards": Reader(_zarr(3, None, shards=(6, 20, 18)), (*V3, "a.zarr/0/c/0/0/0"), _read_zarr),
    "mask": Reader(_mrc, ("a.mrc",), _read_mask),
    "copick project": Reader(
        _project,
        ("config.json", "overlay/ExperimentRuns/R1/Picks/curator_1_beta-galactosidase.json"),
        _read_project,
    ),
    "particles": Reader(_particles, ("a.toml",), _read_particles),
    "thresholds": Reader(_thresholds_file, ("a.json",), _read_thresholds),
    "engines": Reader(_manifest, ("engines.json",), _read_manifest),
    "weights": Reader(_weights, ("a.safetensors",), _read_weights),
}
JSON_READERS = [n for n, r in READERS.items() if any("json" in f or ".z" in f.rsplit("/")[-1] for f in r.files)]


@pytest.fixture(scope="module")
def sound() -> Iterator[Callable[[str], dict[str, bytes]]]:
    """The files of a sound input, made once."""

    @functools.cache
    def files(name: str) -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as place:
            folder = pathlib.Path(place)
            READERS[name].make(folder)
            READERS[name].read(folder)
            return {
                str(p.relative_to(folder)): data.replace(place.encode(), b"@HERE@")
                for p, data in snapshot(folder).items()
            }

    yield files


def attempt(name: str, files: dict[str, bytes], spoiled: str, data: bytes) -> None:
    """Reads the input with one file spoiled: something sound or an InputError, in little memory, nothing touched."""
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place) / "in"
        for file, content in {**files, spoiled: data}.items():
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.replace(b"@HERE@", str(folder).encode()))
        before = snapshot(pathlib.Path(place))
        tracemalloc.start()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                READERS[name].read(folder)
        except InputError as error:
            assert len(str(error)) < 4000 + 20 * len(place)
            if currently_in_test_context():
                event("refused")
        else:
            if currently_in_test_context():
                event("read")
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < MEMORY + 10 * sum(map(len, files.values()))
        assert snapshot(pathlib.Path(place)) == before
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", READERS)
@FUZZ
@given(which=st.integers(0, 10), damage=damages())
def test_spoiled_bytes(sound, name: str, which: int, damage: list[tuple[float, float, str | bytes | None]]) -> None:
    files = sound(name)
    spoiled = READERS[name].files[which % len(READERS[name].files)]
    attempt(name, files, spoiled, spoil(files[spoiled], damage))


@pytest.mark.parametrize("name", JSON_READERS)
@FUZZ
@given(which=st.integers(0, 10), changes=CHANGES)
def test_other_values(sound, name: str, which: int, changes: list[tuple[int, Any]]) -> None:
    files = sound(name)
    choices = [f for f in READERS[name].files if "json" in f or ".z" in f.rsplit("/")[-1]]
    spoiled = choices[which % len(choices)]
    content = with_other_values(json.loads(files[spoiled]), changes)
    attempt(name, files, spoiled, json.dumps(content).encode("utf-8", "surrogatepass"))


WORDS = st.one_of(
    st.integers(-(2**31), 2**31 - 1).map(lambda n: n.to_bytes(4, "little", signed=True)),
    st.sampled_from([0.0, -1.0, 1e-38, 1e38, float("nan"), float("inf")]).map(lambda f: np.float32(f).tobytes()),
    st.binary(min_size=4, max_size=4),
)


@pytest.mark.parametrize("name", ["mrc", "mask"])
@FUZZ
@given(words=st.lists(st.tuples(st.integers(0, 255), WORDS), min_size=1, max_size=5))
def test_other_words_in_an_mrc_header(sound, name: str, words: list[tuple[int, bytes]]) -> None:
    files = sound(name)
    data = bytearray(files["a.mrc"])
    for place, word in words:
        data[4 * place : 4 * place + 4] = word
    attempt(name, files, "a.mrc", bytes(data))


@pytest.mark.slow
@FUZZ
@given(changes=CHANGES, header=st.booleans())
def test_other_values_in_the_header_of_weights(sound, changes: list[tuple[int, Any]], header: bool) -> None:
    files = sound("weights")
    data = files["a.safetensors"]
    size = int.from_bytes(data[:8], "little")
    content = json.loads(data[8 : 8 + size])
    if header:
        content = with_other_values(content, changes)
    else:
        facts = with_other_values(json.loads(content["__metadata__"]["jaxcryo"]), changes)
        content["__metadata__"]["jaxcryo"] = json.dumps(facts)
    text = json.dumps(content).encode("utf-8", "surrogatepass")
    attempt("weights", files, "a.safetensors", len(text).to_bytes(8, "little") + text + data[8 + size :])


def test_deep_json(sound) -> None:
    for name in JSON_READERS:
        for spoiled in READERS[name].files:
            attempt(name, sound(name), spoiled, b"[" * 200_000)


def test_volumes_that_announce_more_than_there_is(tmp_path: pathlib.Path) -> None:
    _mrc(tmp_path)
    data = bytearray((tmp_path / "a.mrc").read_bytes())
    data[:12] = np.array([2**30, 2**30, 2**30], "<i4").tobytes()
    (tmp_path / "a.mrc").write_bytes(data)
    with pytest.raises(InputError):
        open_volume(tmp_path / "a.mrc")
    assert isinstance(GRID, VoxelGrid) and Volume
