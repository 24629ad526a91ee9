"""Tomograms come back as they were written, with their spacing; damaged ones are refused."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

import mrcfile
import numpy as np
import pytest
import zarr
import zarr.codecs
from numpy.typing import NDArray

from jaxcryo.errors import InputError
from jaxcryo.tomogram.volumes import open_volume, write_ome_zarr

SPACING = (10.012444, 10.012444, 10.012444)


@pytest.fixture
def voxels() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(21, 70, 66)).astype(np.float32)


@pytest.fixture
def written(tmp_path: pathlib.Path, voxels: NDArray[np.float32]) -> pathlib.Path:
    path = tmp_path / "TS_1.zarr"
    write_ome_zarr(path, voxels, SPACING)
    return path


def edit_attributes(path: pathlib.Path, change: Any) -> None:
    attributes = json.loads((path / ".zattrs").read_text())
    change(attributes["multiscales"][0])
    (path / ".zattrs").write_text(json.dumps(attributes))


def write_mrc(path: pathlib.Path, voxels: NDArray[Any], voxel_size: float | tuple[float, ...]) -> pathlib.Path:
    with mrcfile.new(path) as mrc:
        mrc.set_data(voxels)
        mrc.voxel_size = voxel_size
    return path


def test_ome_zarr_round_trip(written: pathlib.Path, voxels: NDArray[np.float32]) -> None:
    volume = open_volume(written)
    assert volume.name == "TS_1" and volume.grid.spacing_zyx_angstrom == SPACING
    assert isinstance(volume.voxels, zarr.Array)
    np.testing.assert_array_equal(volume.load(), voxels)
    np.testing.assert_array_equal(volume.read(3, 9), voxels[3:9])


def test_layout_on_disk_is_zarr_2(written: pathlib.Path) -> None:
    metadata = json.loads((written / "0" / ".zarray").read_text())
    assert metadata["zarr_format"] == 2 and metadata["dimension_separator"] == "/"
    assert metadata["dtype"] == "<f4" and metadata["chunks"] == [21, 64, 64]
    assert (written / "0" / "0" / "1" / "1").is_file()
    multiscale = json.loads((written / ".zattrs").read_text())["multiscales"][0]
    assert multiscale["version"] == "0.4" and [d["path"] for d in multiscale["datasets"]] == ["0", "1", "2"]


def test_each_level_averages_blocks_and_says_where_they_are(written: pathlib.Path, voxels: NDArray[np.float32]) -> None:
    half = voxels[:20].reshape(10, 2, 35, 2, 33, 2).mean((1, 3, 5))
    volume = open_volume(written, level=1)
    np.testing.assert_allclose(volume.load(), half, atol=1e-6)
    assert volume.grid.spacing_zyx_angstrom == pytest.approx(tuple(2 * s for s in SPACING))
    datasets = json.loads((written / ".zattrs").read_text())["multiscales"][0]["datasets"]
    shifts = [d["coordinateTransformations"][1]["translation"] for d in datasets]
    np.testing.assert_allclose(shifts, np.outer([0, 0.5, 1.5], SPACING))
    assert open_volume(written, level=2).grid.shape_zyx == (5, 17, 16)


def test_a_level_of_every_second_voxel_begins_later(tmp_path: pathlib.Path) -> None:
    write_ome_zarr(tmp_path / "a.zarr", np.ones((8, 8, 8), np.float32), (10.0, 10.0, 10.0), levels=2)
    edit_attributes(
        tmp_path / "a.zarr",
        lambda m: m["datasets"][1]["coordinateTransformations"][1].update(translation=[0.0, 0.0, 10.0]),
    )
    # z and y: voxels 0, 2, … of level 0, whose centres lie 5 Å nearer to the corner than those of pairs; x: 1, 3, …
    assert open_volume(tmp_path / "a.zarr", level=1).grid.origin_xyz_angstrom == (5, -5, -5)


@pytest.mark.parametrize("spacing", [None, 7.84])
@pytest.mark.parametrize("with_translation", [True, False])
def test_positions_in_a_level_are_those_of_level_0(
    tmp_path: pathlib.Path, spacing: float | None, with_translation: bool
) -> None:
    voxels = np.zeros((24, 24, 24), np.float32)
    voxels[8:12, 12:16, 4:8] = 1
    write_ome_zarr(tmp_path / "a.zarr", voxels, SPACING)
    if not with_translation:
        edit_attributes(tmp_path / "a.zarr", lambda m: [d["coordinateTransformations"].pop() for d in m["datasets"]])
    whole = open_volume(tmp_path / "a.zarr", spacing_angstrom=spacing)
    corner = np.full((1, 3), -0.5)
    center = whole.grid.to_angstrom([[9.5, 13.5, 5.5]]) - whole.grid.to_angstrom(corner)
    for level, place in ((1, [[4.5, 6.5, 2.5]]), (2, [[2, 3, 1]])):
        volume = open_volume(tmp_path / "a.zarr", level=level, spacing_angstrom=spacing)
        assert volume.grid.spacing_angstrom == pytest.approx(2**level * whole.grid.spacing_angstrom)
        assert np.abs(volume.grid.origin_xyz_angstrom).max() == 0
        np.testing.assert_allclose(volume.grid.to_angstrom(place) - volume.grid.to_angstrom(corner), center)
        assert volume.load()[tuple(np.floor(place[0]).astype(int))] == 1


def test_a_volume_of_zeros_and_one_of_a_single_slice(tmp_path: pathlib.Path) -> None:
    write_ome_zarr(tmp_path / "zeros.zarr", np.zeros((1, 5, 6), np.float32), SPACING)
    volume = open_volume(tmp_path / "zeros.zarr", level=2)
    assert volume.load().shape == (1, 1, 1)
    assert volume.grid.spacing_zyx_angstrom == pytest.approx((SPACING[0], 4 * SPACING[1], 4 * SPACING[2]))


@pytest.mark.parametrize("compressor", ["blosc", "gzip", None])
def test_ome_zarr_0_5_with_leading_axes(
    tmp_path: pathlib.Path, voxels: NDArray[np.float32], compressor: str | None
) -> None:
    codec = {"blosc": zarr.codecs.BloscCodec(), "gzip": zarr.codecs.GzipCodec(), None: None}[compressor]
    group: Any = zarr.open_group(tmp_path / "v5.zarr", mode="w", zarr_format=3)
    array = group.create_array(
        "s0", shape=(1, 1, *voxels.shape), chunks=(1, 1, 16, 32, 32), dtype="float32", compressors=codec
    )
    array[:] = voxels[None, None]
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"]
    dataset = {"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 0.5, 0.5, 0.5]}]}
    whole = [{"type": "scale", "scale": [1, 1, 2, 2, 2]}]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": [dataset], "coordinateTransformations": whole}],
    }
    volume = open_volume(tmp_path / "v5.zarr")
    assert volume.grid.spacing_zyx_angstrom == (10.0, 10.0, 10.0)
    assert volume.voxels.shape == voxels.shape
    np.testing.assert_array_equal(volume.load(), voxels)
    np.testing.assert_array_equal(volume.voxels[2:4, 5], voxels[2:4, 5])


def test_sharded_arrays(tmp_path: pathlib.Path) -> None:
    group: Any = zarr.open_group(tmp_path / "s.zarr", mode="w", zarr_format=3)
    group.create_array("0", shape=(8, 8, 8), chunks=(2, 2, 2), shards=(4, 4, 4), dtype="float32")[:] = 1
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [5, 5, 5]}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"datasets": [dataset]}]}
    assert open_volume(tmp_path / "s.zarr").load().mean() == 1


def test_the_override_replaces_the_spacing(written: pathlib.Path) -> None:
    assert open_volume(written, spacing_angstrom=7.5).grid.spacing_zyx_angstrom == (7.5, 7.5, 7.5)
    with pytest.raises(InputError, match="must be above 0"):
        open_volume(written, spacing_angstrom=0)


def test_missing_level_lists_the_available(written: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"no level 3; its levels are: 0 \(0\), 1 \(1\), 2 \(2\)"):
        open_volume(written, level=3)
    shutil.rmtree(written / "2")
    with pytest.raises(InputError, match="level 2 is listed but cannot be opened"):
        open_volume(written, level=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(datasets=[]), "no level 0; its levels are: none"),
        (lambda m: m["datasets"][0].pop("coordinateTransformations"), "no scale; .*--voxel-spacing"),
        (lambda m: m["axes"][0].update(unit="parsec"), "parsec"),
        (lambda m: m["axes"].reverse(), "expected the last three to be z, y, x"),
        (
            lambda m: m["datasets"][0].update(coordinateTransformations=[{"type": "scale", "scale": [0, 1, 1]}]),
            "expected values above 0",
        ),
    ],
)
def test_unusable_metadata(written: pathlib.Path, change: Any, message: str) -> None:
    edit_attributes(written, change)
    with pytest.raises(InputError, match=message):
        open_volume(written)


def test_a_scale_of_one_without_unit_is_a_default(written: pathlib.Path) -> None:
    def change(multiscale: dict[str, Any]) -> None:
        for axis in multiscale["axes"]:
            del axis["unit"]
        multiscale["datasets"][0]["coordinateTransformations"][0]["scale"] = [1, 1, 1]

    edit_attributes(written, change)
    with pytest.raises(InputError, match="--voxel-spacing"):
        open_volume(written)
    assert open_volume(written, spacing_angstrom=10).grid.spacing_angstrom == 10


def test_no_multiscales_or_nothing_at_all(written: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (written / ".zattrs").write_text("{}")
    with pytest.raises(InputError, match=r"'multiscales'.*inside: 0, 1, 2"):
        open_volume(written)
    (written / ".zattrs").write_text("{")
    with pytest.raises(InputError, match="cannot be opened"):
        open_volume(written)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="cannot be opened"):
        open_volume(tmp_path / "empty")
    with pytest.raises(InputError, match="does not exist"):
        open_volume(tmp_path / "nowhere")
    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match=r"'\.png' are not read"):
        open_volume(tmp_path / "a.png")


def test_wrong_rank(tmp_path: pathlib.Path) -> None:
    for name, shape in (("flat", (8, 8)), ("many", (2, 8, 8, 8))):
        group: Any = zarr.open_group(tmp_path / name, mode="w", zarr_format=2)
        group.create_array("0", shape=shape, chunks=shape, dtype="float32")[:] = 1
        group.attrs["multiscales"] = [{"datasets": [{"path": "0"}]}]
        with pytest.raises(InputError, match="expected z, y, x"):
            open_volume(tmp_path / name, spacing_angstrom=10)


@pytest.mark.parametrize("keep", [0.0, 0.5, -1])
def test_a_truncated_chunk_is_refused_at_opening(written: pathlib.Path, keep: float) -> None:
    chunk = written / "0" / "0" / "1" / "0"
    data = chunk.read_bytes()
    chunk.write_bytes(data[:-1] if keep < 0 else data[: int(keep * len(data))])
    with pytest.raises(InputError, match="1 chunks are truncated"):
        open_volume(written)


def test_a_chunk_that_loses_its_end_later_or_is_no_blosc_is_refused_at_reading(
    written: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    volume = open_volume(written)
    chunk = written / "0" / "0" / "1" / "0"
    chunk.write_bytes(chunk.read_bytes()[:1000])
    with pytest.raises(InputError, match="truncated or damaged"):
        volume.load()
    group: Any = zarr.open_group(tmp_path / "raw", mode="w", zarr_format=2)
    group.create_array("0", shape=(8, 8, 8), chunks=(8, 8, 8), dtype="float32", compressors=None)[:] = 1
    group.attrs["multiscales"] = [{"datasets": [{"path": "0"}]}]
    (tmp_path / "raw" / "0" / "0.0.0").write_bytes(b"\0" * 100)
    with pytest.raises(InputError, match="chunks are truncated"):
        open_volume(tmp_path / "raw", spacing_angstrom=10)


@pytest.mark.parametrize("dtype", ["float32", "int16", "int8", "uint16", "float16"])
@pytest.mark.parametrize("suffix", [".mrc", ".rec", ".map"])
def test_mrc_round_trip(tmp_path: pathlib.Path, dtype: str, suffix: str) -> None:
    voxels = np.random.default_rng(1).integers(0, 99, (4, 5, 6)).astype(dtype)
    path = write_mrc(tmp_path / f"TS_2{suffix}", voxels, (10.5, 10.25, 10.6))
    with pytest.warns(UserWarning, match=r"10\.5 × 10\.25 × 10\.6 Å \(x, y, z\); if they are cubes") as told:
        volume = open_volume(path)
    assert len(told) == 1 or dtype == "int8"
    assert volume.name == "TS_2" and volume.voxels.base is not None  # in the file, not in memory
    assert volume.grid.spacing_zyx_angstrom == pytest.approx((10.6, 10.25, 10.5), rel=1e-6)
    np.testing.assert_array_equal(volume.load(), voxels.astype(np.float32))


@pytest.mark.parametrize("voxel_size", [0.0, 1.0])
def test_mrc_without_a_credible_voxel_size_needs_the_override(tmp_path: pathlib.Path, voxel_size: float) -> None:
    path = write_mrc(tmp_path / "a.mrc", np.ones((4, 5, 6), np.float32), voxel_size)
    with pytest.raises(InputError, match="--voxel-spacing"):
        open_volume(path)
    assert open_volume(path, spacing_angstrom=13.48).grid.spacing_zyx_angstrom == (13.48,) * 3


def test_mrc_with_a_bad_machine_stamp_is_read_with_a_warning(tmp_path: pathlib.Path) -> None:
    path = write_mrc(tmp_path / "a.mrc", np.full((4, 5, 6), 3, np.float32), 10)
    with path.open("r+b") as stream:
        stream.seek(212)
        stream.write(b"\0\0\0\0")
    with pytest.warns(UserWarning, match="faulty header.*machine stamp.*little-endian"):
        volume = open_volume(path)
    assert volume.load().mean() == 3


def test_mrc_that_is_cut_flat_complex_or_no_mrc(tmp_path: pathlib.Path) -> None:
    path = write_mrc(tmp_path / "cut.mrc", np.ones((4, 5, 6), np.float32), 10)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"1503 bytes; its header announces 1504"):
        open_volume(path)
    with pytest.raises(InputError, match="expected three sizes"):
        open_volume(write_mrc(tmp_path / "flat.mrc", np.ones((5, 6), np.float32), 10))
    with pytest.raises(InputError, match="complex"):
        open_volume(write_mrc(tmp_path / "complex.mrc", np.ones((4, 5, 6), np.complex64), 10))
    with pytest.raises(InputError, match="only level 0"):
        open_volume(path, level=1)
    (tmp_path / "text.mrc").write_text("hello")
    with pytest.raises(InputError, match="cannot be opened as MRC"):
        open_volume(tmp_path / "text.mrc")
    (tmp_path / "junk.mrc").write_bytes(b"\x11" * 2000)
    with pytest.raises(InputError, match="cannot be opened as MRC"):
        open_volume(tmp_path / "junk.mrc")


def test_voxels_that_are_not_three_dimensional_are_not_written(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="expected three sizes"):
        write_ome_zarr(tmp_path / "a.zarr", np.zeros((4, 4), np.float32), SPACING)
