"""What users of other programs reported about tomograms that they could not read, or read wrong, made anew here."""

from __future__ import annotations

import json
import pathlib
import warnings
from typing import Any

import mrcfile
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from jaxcryo.errors import InputError
from jaxcryo.tomogram.volumes import open_volume, write_ome_zarr

VOXELS = np.random.default_rng(0).normal(100, 5, (12, 40, 44)).astype(np.float32)


def mrc(path: pathlib.Path, voxels: NDArray[Any] = VOXELS, size: float = 10.0) -> bytearray:
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(voxels)
        file.voxel_size = size
    return bytearray(path.read_bytes())


def told(path: pathlib.Path, **options: Any) -> tuple[NDArray[np.float32], str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        voxels = open_volume(path, **options).load()
    return voxels, " ".join(str(w.message) for w in caught)


@pytest.mark.parametrize("stamp", ["44202020", "44000000", "44110000", "00000000", "90424dc3"])
@pytest.mark.parametrize("word", [b"MAP ", b"|\x94\xf2\xc4"])
def test_machine_stamps_of_imod_serialem_emdb_and_cryodrgn(tmp_path: pathlib.Path, stamp: str, word: bytes) -> None:
    """ccpem/mrcfile 47, 4 and 7; ml-struct-bio/cryodrgn 248; baradlab/surface_morphometrics 9."""
    data = mrc(tmp_path / "a.mrc")
    data[208:216] = word + bytes.fromhex(stamp)
    (tmp_path / "a.mrc").write_bytes(data)
    voxels, said = told(tmp_path / "a.mrc")
    np.testing.assert_array_equal(voxels, VOXELS)
    assert ("faulty header" in said) == (stamp != "44110000" or word != b"MAP ") or stamp == "44110000"


def test_a_pixel_size_of_one(tmp_path: pathlib.Path) -> None:
    """IsoNet-cryoET/IsoNet2 13, swing-research/icecream 15: outputs lose their pixel size."""
    mrc(tmp_path / "a.mrc", size=1.0)
    with pytest.raises(InputError, match="--voxel-spacing"):
        open_volume(tmp_path / "a.mrc")


def test_a_grid_of_one(tmp_path: pathlib.Path) -> None:
    """em-MRCZ/python-mrcz 13: grid 1, 1, 1 and the pixel size as cell, or the whole cell."""
    data = mrc(tmp_path / "a.mrc")
    data[28:40] = np.array([1, 1, 1], "<i4").tobytes()
    (tmp_path / "a.mrc").write_bytes(data)
    with pytest.raises(InputError, match=r"440 × 400 × 120.*gives 10 Å"):
        open_volume(tmp_path / "a.mrc")
    data[40:52] = np.array([10, 10, 10], "<f4").tobytes()
    (tmp_path / "a.mrc").write_bytes(data)
    assert open_volume(tmp_path / "a.mrc").grid.spacing_zyx_angstrom == (10, 10, 10)


def test_spacings_that_differ_by_rounding(tmp_path: pathlib.Path) -> None:
    """SBC-Utrecht/pytom-match-pick 26: Warp's 13.28 Å tomograms were refused."""
    data = mrc(tmp_path / "a.mrc", size=13.28)
    data[40:52] = np.array([44 * 13.28, 40 * 13.2804, 12 * 13.279], "<f4").tobytes()
    (tmp_path / "a.mrc").write_bytes(data)
    voxels, said = told(tmp_path / "a.mrc")
    assert not said and voxels.shape == VOXELS.shape


def test_an_extended_header_that_was_not_copied(tmp_path: pathlib.Path) -> None:
    """juglab/cryoCARE_pip 43 and 29: nsymbt of the input in an output without it; 57,600 bytes in the report."""
    data = mrc(tmp_path / "a.mrc")
    data[92:96] = np.array(57600, "<i4").tobytes()
    (tmp_path / "a.mrc").write_bytes(data)
    voxels, said = told(tmp_path / "a.mrc")
    np.testing.assert_array_equal(voxels, VOXELS)
    assert "57600" in said


def test_an_image_of_bioformats2raw(tmp_path: pathlib.Path) -> None:
    """ome/napari-ome-zarr 21, ida-mdc/pixel-patrol 275: the image is in 0/."""
    root = tmp_path / "a.zarr"
    group: Any = zarr.open_group(root, mode="w", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    group.create_group("OME").attrs["series"] = ["0"]
    write_ome_zarr(root / "0", VOXELS, (10.0,) * 3, levels=2)
    np.testing.assert_array_equal(open_volume(root).load(), VOXELS)
    assert open_volume(root, level=1).grid.spacing_angstrom == 20
    write_ome_zarr(root / "1", VOXELS, (10.0,) * 3)
    with pytest.raises(InputError, match=r"2 images \(0, 1\).*a\.zarr/0"):
        open_volume(root)
    np.testing.assert_array_equal(open_volume(root / "1").load(), VOXELS)


@pytest.mark.parametrize("separator", [".", "/"])
def test_chunks_under_other_names(tmp_path: pathlib.Path, separator: str) -> None:
    """ome/napari-ome-zarr 39, zarr-developers/zarr-python 1533: read as zeros without a word."""
    write_ome_zarr(tmp_path / "a.zarr", VOXELS, (10.0,) * 3, levels=1)
    array = tmp_path / "a.zarr" / "0"
    metadata = json.loads((array / ".zarray").read_text())
    if separator == "/":
        metadata["dimension_separator"] = "."
        (array / ".zarray").write_text(json.dumps(metadata))
    else:
        chunk = array / "0" / "0" / "0"
        data = chunk.read_bytes()
        chunk.unlink()
        (array / "0" / "0").rmdir()
        (array / "0").rmdir()
        (array / "0.0.0").write_bytes(data)
    with pytest.raises(InputError, match="dimension_separator"):
        open_volume(tmp_path / "a.zarr")


def test_levels_without_a_path(tmp_path: pathlib.Path) -> None:
    """glencoesoftware/bioformats2raw 179."""
    write_ome_zarr(tmp_path / "a.zarr", VOXELS, (10.0,) * 3, levels=1)
    file = tmp_path / "a.zarr" / ".zattrs"
    content = json.loads(file.read_text())
    content["multiscales"][0]["datasets"][0]["path"] = ""
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="level 0"):
        open_volume(tmp_path / "a.zarr")


@pytest.mark.parametrize("fill", ["0", None, "absent"])
def test_fill_values_as_programs_write_them(tmp_path: pathlib.Path, fill: str | None) -> None:
    """mobie/mobie-viewer-fiji 572: a text; Unidata/netcdf-c 2059: none at all."""
    write_ome_zarr(tmp_path / "a.zarr", VOXELS, (10.0,) * 3, levels=1)
    file = tmp_path / "a.zarr" / "0" / ".zarray"
    metadata = {**json.loads(file.read_text()), "fill_value": fill}
    if fill == "absent":
        del metadata["fill_value"]
    file.write_text(json.dumps(metadata))
    try:
        np.testing.assert_array_equal(open_volume(tmp_path / "a.zarr").load(), VOXELS)
    except InputError as error:
        assert fill == "absent" and "level 0" in str(error)
