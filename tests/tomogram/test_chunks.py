"""Chunks that are not what their array says are refused before anything is unpacked."""

from __future__ import annotations

import gzip
import json
import pathlib
import warnings
import zlib
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
import zarr.codecs

from jaxcryo.errors import InputError
from jaxcryo.tomogram.statistics import surveyed
from jaxcryo.tomogram.volumes import open_volume

VOXELS = np.random.default_rng(0).normal(size=(20, 36, 36)).astype(np.float32)
PACKERS = {
    2: {
        "none": None,
        "blosc": numcodecs.Blosc(),
        "zstd": numcodecs.Zstd(),
        "gzip": numcodecs.GZip(),
        "zlib": numcodecs.Zlib(),
    },
    3: {
        "none": None,
        "blosc": zarr.codecs.BloscCodec(),
        "zstd": zarr.codecs.ZstdCodec(),
        "gzip": zarr.codecs.GzipCodec(),
    },
}
CASES = [(version, name) for version, packers in PACKERS.items() for name in packers]


def write(path: pathlib.Path, version: int, name: str, **options: Any) -> pathlib.Path:
    """The array, and the file of one of its chunks."""
    group: Any = zarr.open_group(path, mode="w", zarr_format=version)  # type: ignore[arg-type]
    options = {"shape": VOXELS.shape, "dtype": "float32", "chunks": (8, 16, 16), **options}
    group.create_array("0", compressors=PACKERS[version][name], **options)[:] = VOXELS.astype(options["dtype"])
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [5, 5, 5]}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"datasets": [dataset]}]}
    return path / "0" / ("0.1.0" if version == 2 else "c/0/1/0")


@pytest.mark.parametrize(("version", "name"), CASES)
def test_sound_chunks_are_read(tmp_path: pathlib.Path, version: int, name: str) -> None:
    write(tmp_path / "a", version, name)
    np.testing.assert_array_equal(open_volume(tmp_path / "a").load(), VOXELS)


@pytest.mark.parametrize(("version", "name"), CASES)
def test_chunks_that_lost_their_end(tmp_path: pathlib.Path, version: int, name: str) -> None:
    chunk = write(tmp_path / "a", version, name)
    chunk.write_bytes(chunk.read_bytes()[:-9])
    with pytest.raises(InputError, match="1 chunks are truncated"):
        open_volume(tmp_path / "a")


def bomb(name: str, size: int) -> bytes:
    zeros = bytes(size)
    return {
        "none": lambda: zeros,
        "blosc": lambda: numcodecs.Blosc().encode(zeros),
        "zstd": lambda: numcodecs.Zstd().encode(zeros),
        "gzip": lambda: gzip.compress(zeros),
        "zlib": lambda: zlib.compress(zeros),
    }[name]()


@pytest.mark.parametrize(("version", "name"), CASES)
def test_chunks_that_would_unpack_to_more(tmp_path: pathlib.Path, version: int, name: str) -> None:
    chunk = write(tmp_path / "a", version, name)
    sound = chunk.read_bytes()
    spoiled = [bomb(name, 2**26)]
    if name in ("gzip", "zlib", "zstd"):
        spoiled.append(sound + sound)
    for data in spoiled:
        chunk.write_bytes(data)
        with pytest.raises(InputError, match="1 chunks are larger than their array says"):
            open_volume(tmp_path / "a")


def test_zstd_frames_that_do_not_say_their_size(tmp_path: pathlib.Path) -> None:
    """As programs write them that compress in a stream: blocks of at most 128 KiB; here all stored as they are."""

    def frame(data: bytes) -> bytes:
        pieces = [data[i : i + 2**17] for i in range(0, len(data), 2**17)]
        blocks = b"".join((len(p) << 3 | (p is pieces[-1])).to_bytes(3, "little") + p for p in pieces)
        return b"\x28\xb5\x2f\xfd\x00\x38" + blocks  # no content size, window of 128 KiB

    chunk = write(tmp_path / "a", 3, "zstd")
    raw = np.zeros((8, 16, 16), "<f4").tobytes()
    chunk.write_bytes(frame(raw))
    assert not open_volume(tmp_path / "a").load()[:8, 16:32, :16].any()
    chunk.write_bytes(frame(bytes(2**20)))
    with pytest.raises(InputError, match="larger than their array says"):
        open_volume(tmp_path / "a")


@pytest.mark.parametrize("version", [2, 3])
def test_arrays_that_are_no_tomogram(tmp_path: pathlib.Path, version: int) -> None:
    write(tmp_path / "a", version, "none", dtype="complex64")
    with pytest.raises(InputError, match="expected real numbers"):
        open_volume(tmp_path / "a")
    write(tmp_path / "b", version, "none")
    file = tmp_path / "b" / "0" / (".zarray" if version == 2 else "zarr.json")
    metadata = json.loads(file.read_text())
    for change in ({"shape": [10**15] * 3}, {"shape": [10**6, 10**6, 1]}):
        file.write_text(json.dumps({**metadata, **change}))
        with pytest.raises(InputError, match="expected a tomogram of at most"):
            open_volume(tmp_path / "b")
    huge = {"chunks": [10**6] * 3}
    if version == 3:
        huge = {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [10**6] * 3}}}
    file.write_text(json.dumps({**metadata, **huge}))
    with pytest.raises(InputError, match="expected a tomogram of at most"):
        open_volume(tmp_path / "b")


def test_codecs_that_could_do_anything_are_not_run(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "a", 2, "none")
    file = tmp_path / "a" / "0" / ".zarray"
    metadata = json.loads(file.read_text())
    for change in (
        {"filters": [{"id": "zlib", "level": 1}]},
        {"filters": [{"id": "pickle", "protocol": 5}]},
        {"compressor": {"id": "pickle", "protocol": 5}},
        {"compressor": {"id": "bz2", "level": 1}},
        {"dtype": "|O", "filters": [{"id": "pickle", "protocol": 5}]},
    ):
        file.write_text(json.dumps({**metadata, **change}))
        with pytest.raises(InputError, match=r"filters|compressed|cannot be opened|real numbers"):
            open_volume(tmp_path / "a")


@pytest.mark.parametrize("place", ["../../other", "/etc", "0/../../other", "..\\other", 7, None, ""])
def test_levels_outside_of_the_folder(tmp_path: pathlib.Path, place: object) -> None:
    write(tmp_path / "a", 3, "none")
    write(tmp_path / "other", 3, "none")
    file = tmp_path / "a" / "zarr.json"
    metadata = json.loads(file.read_text())
    metadata["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = place
    file.write_text(json.dumps(metadata))
    with pytest.raises(InputError, match="level 0 is listed but cannot be opened"):
        open_volume(tmp_path / "a")


def told(path: pathlib.Path) -> tuple[np.ndarray, str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        voxels = open_volume(path).load()
    return voxels, " ".join(str(w.message) for w in caught)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("fill", [0.0, -3.5, float("nan")])
def test_absent_chunks_are_the_fill_value(tmp_path: pathlib.Path, version: int, fill: float) -> None:
    """As zarr leaves out chunks that hold nothing else."""
    write(tmp_path / "a", version, "blosc", fill_value=fill)
    expected = VOXELS.copy()
    group: Any = zarr.open_group(tmp_path / "a", mode="r+", zarr_format=version)  # type: ignore[arg-type]
    expected[:, :, :16] = fill
    group["0"][:] = expected
    voxels, said = told(tmp_path / "a")
    np.testing.assert_array_equal(voxels, expected)
    assert f"9 of its 27 chunks are absent and read as the fill value ({fill:g})" in said and "copied" not in said


@pytest.mark.parametrize("version", [2, 3])
def test_stores_that_lost_chunks(tmp_path: pathlib.Path, version: int) -> None:
    write(tmp_path / "a", version, "none")
    store = tmp_path / "a" / "0"
    keys = ["1.1.1" if version == 2 else "c/1/1/1", "0.0.0" if version == 2 else "c/0/0/0"]
    (store / keys[1]).unlink()
    voxels, said = told(tmp_path / "a")
    assert "1 of its 27 chunks" in said and "copied" not in said and not voxels[:8, :16, :16].any()
    (store / keys[0]).unlink()
    voxels, said = told(tmp_path / "a")
    assert "2 of its 27 chunks" in said and "1, 1, 1" in said and "copied" in said
    for file in [p for p in store.rglob("*") if p.is_file() and p.name[0] in "0123456789"]:
        file.unlink()
    voxels, said = told(tmp_path / "a")
    assert "27 of its 27 chunks" in said and "copy the tomogram again" in said and not voxels.any()
    with pytest.raises(InputError, match="every voxel is 0"), pytest.warns(UserWarning, match="27 of its 27"):
        surveyed(open_volume(tmp_path / "a"))


def test_scales_that_no_tomogram_has(tmp_path: pathlib.Path) -> None:
    for scale in ([5, 5, 480], [0.5] * 3, [500] * 3, [5, 5, 5.5]):
        write(tmp_path / "a", 2, "none")
        group: Any = zarr.open_group(tmp_path / "a", mode="r+")
        dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        group.attrs["ome"] = {"version": "0.5", "multiscales": [{"datasets": [dataset]}]}
        with pytest.raises(InputError, match="--voxel-spacing"):
            open_volume(tmp_path / "a")
        assert open_volume(tmp_path / "a", spacing_angstrom=5).grid.spacing_angstrom == 5
