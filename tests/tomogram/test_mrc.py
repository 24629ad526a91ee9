"""MRC files as IMOD, SerialEM, EMAN2, AreTomo and others write them: read right, or refused with the way out."""

from __future__ import annotations

import bz2
import gzip
import pathlib
import warnings
from typing import Any

import mrcfile
import numpy as np
import pytest
from numpy.typing import NDArray

from jaxcryo.errors import InputError
from jaxcryo.project.mask import open_mask
from jaxcryo.tomogram.resample import resampled
from jaxcryo.tomogram.volumes import Reading, open_volume, tomogram_name

SHAPE = (12, 20, 26)
WORDS = {"nz": 8, "mode": 12, "mz": 36, "cella_z": 48, "mapc": 64, "dmin": 76, "dmax": 80, "ispg": 88, "nsymbt": 92,
         "nversion": 108, "stamp": 152, "flags": 156}  # fmt: skip


def noise(low: float = -50, high: float = 50, dtype: str = "int16", shape: Any = SHAPE) -> NDArray[Any]:
    values = np.random.default_rng(0).normal((low + high) / 2, (high - low) / 8, shape)
    return np.clip(values if dtype.startswith("f") else np.rint(values), low, high).astype(dtype)


def write(path: pathlib.Path, voxels: NDArray[Any], *, size: float = 10.0, **words: int | float) -> pathlib.Path:
    """An MRC file with some of its header's words replaced."""
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(voxels)
        mrc.voxel_size = size
    return edit(path, **words)


def edit(path: pathlib.Path, **words: int | float) -> pathlib.Path:
    data = bytearray(path.read_bytes())
    for name, value in words.items():
        data[WORDS[name] : WORDS[name] + 4] = np.array(value, "<i4" if isinstance(value, int) else "<f4").tobytes()
    path.write_bytes(data)
    return path


def write_bytes(path: pathlib.Path, values: NDArray[np.uint8], **words: int | float) -> pathlib.Path:
    """Mode 0 with these very bytes, and extremes that say nothing."""
    return write(path, values.view(np.int8), **{"dmin": 0.0, "dmax": 0.0, **words})


def told(path: pathlib.Path, **options: Any) -> tuple[NDArray[np.float32], str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        voxels = open_volume(path, **options).load()
    return voxels, " ".join(str(w.message) for w in caught)


def test_imod_s_bytes(tmp_path: pathlib.Path) -> None:
    values = noise(0, 255, "uint8")
    unsigned = write_bytes(tmp_path / "a.mrc", values, stamp=1146047817, flags=0)
    voxels, said = told(unsigned)
    np.testing.assert_array_equal(voxels, values)
    assert not said
    voxels, said = told(write_bytes(tmp_path / "b.mrc", (values ^ 128), stamp=1146047817, flags=1))
    np.testing.assert_array_equal(voxels, values.astype(np.float32) - 128)
    assert not said


def test_bytes_by_extremes_and_by_the_look_of_them(tmp_path: pathlib.Path) -> None:
    values = noise(0, 255, "uint8")
    plain = values.astype(np.float32)
    for words, data, expected, silent in (
        ({"dmin": 0.0, "dmax": 255.0}, values, plain, True),  # SerialEM, EMAN2
        ({"dmin": -128.0, "dmax": 127.0}, values ^ 128, plain - 128, True),  # the standard's
        ({}, values, plain, False),
        ({}, values ^ 128, plain - 128, False),
        ({"dmin": -128.0, "dmax": 127.0}, values, plain, False),  # extremes of before a conversion
    ):
        voxels, said = told(write_bytes(tmp_path / "a.mrc", data, **words))
        np.testing.assert_array_equal(voxels, expected)
        assert silent == (not said)
        assert silent or ("--bytes" in said and ("signed" in said))


def test_bytes_as_they_are_said_to_be(tmp_path: pathlib.Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)  # nothing tells
    path = write_bytes(tmp_path / "a.mrc", values)
    voxels, said = told(path)
    np.testing.assert_array_equal(voxels, values.view(np.int8))
    assert "signed" in said and "--bytes" in said
    for kind in ("unsigned", "signed"):
        voxels, said = told(path, bytes_are=kind)
        np.testing.assert_array_equal(voxels, values if kind == "unsigned" else values.view(np.int8))
        assert not said
    np.testing.assert_array_equal(Reading(bytes_are="unsigned").open(path, "a").load(), values)
    # a flag that the extremes and the voxels contradict
    both = write_bytes(path, noise(0, 255, "uint8") ^ 128, stamp=1146047817, flags=0, dmin=-128.0, dmax=127.0)
    assert "--bytes" in told(both)[1]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("mode", [0, 1, 2, 6, 12])
@pytest.mark.parametrize("stamped", [True, False])
def test_every_mode_in_both_byte_orders(tmp_path: pathlib.Path, order: str, mode: int, stamped: bool) -> None:
    order = "<" if mode == 0 else order  # mrcfile has no other for bytes
    kind = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}[mode]
    values = noise(0, 100).astype(order + kind)
    path = tmp_path / "a.mrc"
    with mrcfile.new(path) as mrc:
        mrc.set_data(values)
        mrc.voxel_size = 10.0
    if not stamped:
        data = bytearray(path.read_bytes())
        data[208:216] = bytes(8)
        path.write_bytes(data)
    voxels, said = told(path, bytes_are="signed")
    np.testing.assert_array_equal(voxels, values.astype(np.float32))
    assert ("faulty header" in said) == (not stamped) and (stamped or ("big" if order == ">" else "little") in said)


@pytest.mark.parametrize("columns", [26, 25])
def test_four_bits(tmp_path: pathlib.Path, columns: int) -> None:
    values = np.random.default_rng(0).integers(0, 16, (*SHAPE[:2], columns)).astype(np.uint8)
    padded = np.pad(values, [(0, 0), (0, 0), (0, columns % 2)])
    packed = padded[..., ::2] | padded[..., 1::2] << 4
    path = write(tmp_path / "a.mrc", values.view(np.int8), mode=101)
    path.write_bytes(path.read_bytes()[:1024] + packed.tobytes())
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.load(), values)
    np.testing.assert_array_equal(volume.read_box(slice(3, 5), slice(2, 9), slice(5, 20)), values[3:5, 2:9, 5:20])


@pytest.mark.parametrize(("mode", "what"), [(3, "complex"), (4, "complex"), (16, "RGB"), (7, "mode 7")])
def test_what_is_no_real_number(tmp_path: pathlib.Path, mode: int, what: str) -> None:
    with pytest.raises(InputError, match=what):
        open_volume(write(tmp_path / "a.mrc", noise(), mode=mode))


def test_stacks_of_volumes(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="stack of 3 volumes"):
        open_volume(write(tmp_path / "a.mrc", noise(), ispg=401, mz=4))


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 1, 3), (1, 3, 2), (2, 3, 1), (3, 1, 2), (0, 0, 0)])
def test_axes_in_any_order_of_storage(tmp_path: pathlib.Path, order: tuple[int, int, int]) -> None:
    values = noise()  # z, y, x
    axes = order if any(order) else (1, 2, 3)
    stored = values.transpose([3 - axis for axis in axes[::-1]])  # sections, rows, columns
    path = write(tmp_path / "a.mrc", np.ascontiguousarray(stored))
    data = bytearray(path.read_bytes())
    data[64:76] = np.array(order, "<i4").tobytes()
    data[28:40] = np.array(SHAPE[::-1], "<i4").tobytes()
    data[40:52] = np.array([10.0 * n for n in SHAPE[::-1]], "<f4").tobytes()
    path.write_bytes(data)
    volume = open_volume(path)
    assert volume.grid.shape_zyx == SHAPE and volume.grid.spacing_zyx_angstrom == (10, 10, 10)
    np.testing.assert_array_equal(volume.load(), values)


def fei_header(sections: int) -> bytes:
    """As old FEI software: 1024 records of 128 bytes, of which the first are used."""
    records = np.zeros((1024, 32), "<f4")
    records[:sections, 0] = np.linspace(-60, 60, sections)
    return records.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "int16", "uint8"])
@pytest.mark.parametrize("extended", [b"\0" * 1024, fei_header(12), bytes(range(256)) * 3 + b"abc"])
def test_an_extended_header_that_is_not_announced(tmp_path: pathlib.Path, dtype: str, extended: bytes) -> None:
    values = noise(*((100, 200) if dtype == "uint8" else (900, 1100)), dtype, (24, 90, 100))
    path = write(tmp_path / "a.mrc", values if dtype != "uint8" else values.view(np.int8), nsymbt=0)
    data = path.read_bytes()
    path.write_bytes(data[:1024] + extended + data[1024:])
    voxels, said = told(path, bytes_are="unsigned")
    np.testing.assert_array_equal(voxels, values)
    assert f"{len(extended)} bytes longer" in said and "extended header" in said


@pytest.mark.parametrize("extra", [b"\0" * 512, b"\xff" * 8000, b"written by hand\n" * 9])
def test_what_follows_the_voxels(tmp_path: pathlib.Path, extra: bytes) -> None:
    values = noise(900, 1100, "float32")
    path = write(tmp_path / "a.mrc", values)
    path.write_bytes(path.read_bytes() + extra)
    voxels, said = told(path)
    np.testing.assert_array_equal(voxels, values)
    assert f"{len(extra)} bytes longer" in said and "left out" in said


def test_lengths_that_leave_it_open(tmp_path: pathlib.Path) -> None:
    values = noise(900, 1100, "float32")
    path = write(tmp_path / "a.mrc", values, nz=10)
    with pytest.warns(UserWarning, match="2 more sections"):
        volume = open_volume(path, spacing_angstrom=10)
    np.testing.assert_array_equal(volume.load(), values[:10])
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    with pytest.raises(InputError, match="nsymbt"):
        open_volume(path)
    path.write_bytes(data[:1024] + b"\0" * 512 + data[1024:][: -2 * 20 * 26 * 4] + b"\0" * 512)
    with pytest.raises(InputError, match=r"1024 bytes longer.*nsymbt"):
        open_volume(path)


def test_an_extended_header_that_is_announced_and_not_there(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a.mrc", noise(), nsymbt=131072)
    voxels, said = told(path)
    np.testing.assert_array_equal(voxels, noise())
    assert "131072" in said
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(InputError, match=r"11 of 12 sections|truncated"):
        open_volume(path)
    path.write_bytes(data + b"\0" * 50)
    with pytest.raises(InputError, match="shorter than the 131072 bytes"):
        open_volume(path)
    path.write_bytes(data[:1024] + b"\0" * 131072 + data[1024:])
    np.testing.assert_array_equal(open_volume(path).load(), noise())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"mz": 1}, r"10 × 10 × 120 Å.*--voxel-spacing.*12 voxels gives 10 Å"),
        ({"cella_z": 12 * 10.6}, "10.6"),
        ({"mz": 0}, "--voxel-spacing"),
    ],
)
def test_voxels_that_are_no_cubes(tmp_path: pathlib.Path, words: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "a.mrc", noise(), **words)
    with pytest.raises(InputError, match=message):
        open_volume(path)
    assert open_volume(path, spacing_angstrom=10).grid.spacing_angstrom == 10


@pytest.mark.parametrize("size", [0.99, 101.0, 1000.0, 0.1, float("nan")])
def test_voxel_sizes_that_no_tomogram_has(tmp_path: pathlib.Path, size: float) -> None:
    with pytest.raises(InputError, match="--voxel-spacing"):
        open_volume(write(tmp_path / "a.mrc", noise(), size=size))


@pytest.mark.parametrize("suffix", [".mrc.gz", ".mrc.bz2", ".rec.gz", ".st", ".ali", ".MRC.GZ"])
def test_packed_files_and_other_names(tmp_path: pathlib.Path, suffix: str) -> None:
    path = write(tmp_path / "a.mrc", noise())
    opener = {"gz": gzip.compress, "bz2": bz2.compress}.get(suffix.lower().rsplit(".")[-1], bytes)
    packed = tmp_path / f"TS_1{suffix}"
    packed.write_bytes(opener(path.read_bytes()))
    volume = open_volume(packed)
    assert volume.name == "TS_1" == tomogram_name(packed) and volume.grid.spacing_angstrom == 10
    np.testing.assert_array_equal(volume.load(), noise())
    if opener is not bytes:
        packed.write_bytes(packed.read_bytes()[:-200])
        with pytest.raises(InputError, match="damaged"):
            open_volume(packed).load()
        packed.write_bytes(path.read_bytes())
        with pytest.raises(InputError, match="not what its name says"):
            open_volume(packed)


def test_links(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a.mrc", noise())
    (tmp_path / "b.mrc").symlink_to(path)
    np.testing.assert_array_equal(open_volume(tmp_path / "b.mrc").load(), noise())
    (tmp_path / "c.mrc").symlink_to(tmp_path / "gone.mrc")
    with pytest.raises(InputError, match=r"link to .*gone\.mrc"):
        open_volume(tmp_path / "c.mrc")


@pytest.mark.parametrize("axes", ["xyz", "xzy", "zyx", "yxz", "yzx", "zxy"])
def test_turned_volumes_keep_the_file_s_positions(tmp_path: pathlib.Path, axes: str) -> None:
    """A particle is found where it lies in the file, whatever way the volume is looked at."""
    values = noise(dtype="float32")
    values[3, 15, 22] = 1000
    path = write(tmp_path / "a.mrc", values)
    plain = Reading(axes="xyz").open(path, "a")
    volume = Reading(axes=axes).open(path, "a")
    order = [3 - 1 - "xyz".index(axis) for axis in axes[::-1]]
    np.testing.assert_array_equal(volume.load(), values.transpose(order))
    box = (slice(1, 9), slice(2, 12), slice(0, 11))
    np.testing.assert_array_equal(volume.read_box(*box), values.transpose(order)[box])
    peak = np.array(np.unravel_index(volume.load().argmax(), volume.grid.shape_zyx))[None]
    np.testing.assert_allclose(volume.grid.to_angstrom(peak), plain.grid.to_angstrom([[3, 15, 22]]))
    np.testing.assert_allclose(volume.grid.to_voxel(volume.grid.to_angstrom(peak + 0.3)), peak + 0.3)
    fine, flat = resampled(volume, 8.0), resampled(plain, 8.0)
    np.testing.assert_allclose(fine.load(), flat.load().transpose(order), rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(
        fine.grid.to_angstrom(np.array([[3, 4, 5]])[:, order]), flat.grid.to_angstrom([[3, 4, 5]])
    )
    seen = flat.grid.in_frame_of(volume.grid)
    np.testing.assert_allclose(seen.to_angstrom([[-0.5] * 3]), volume.grid.to_angstrom([[-0.5] * 3]))


def test_a_volume_that_lies_on_its_side_is_said(tmp_path: pathlib.Path) -> None:
    """An untrimmed reconstruction of IMOD has its thickness along y."""
    path = write(tmp_path / "a.mrc", noise(shape=(60, 16, 70)))
    with pytest.warns(UserWarning, match="shortest axis is y .*70 × 16 × 60.*--axes xzy"):
        Reading().open(path, "a")
    path = write(tmp_path / "a.mrc", noise(shape=(60, 70, 16)))
    with pytest.warns(UserWarning, match="shortest axis is x .*--axes zyx"):
        Reading().open(path, "a")
    Reading(axes="zyx").open(path, "a")
    Reading().open(write(tmp_path / "a.mrc", noise(shape=(20, 70, 66))), "a")
    with pytest.raises(InputError, match="xyy"):
        Reading(axes="xyy").open(path, "a")


def test_masks_of_bytes_and_of_turned_volumes(tmp_path: pathlib.Path) -> None:
    values = np.zeros(SHAPE, np.uint8)
    values[2:5, 3:9, 10:20] = 255
    path = write(tmp_path / "mask.mrc", values.view(np.int8))
    volume = Reading(axes="xzy").open(write(tmp_path / "a.mrc", noise()), "a")
    mask = open_mask(path, "a", volume.grid)
    np.testing.assert_array_equal(mask.load() > 0, values.transpose(1, 0, 2) > 0)
    assert mask.grid == volume.grid
