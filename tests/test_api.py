"""Five lines in a notebook; and one phantom gives the same picks whatever file it comes in."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import subprocess
import sys
import warnings
from typing import Any

import jax.numpy as jnp
import mrcfile
import numpy as np
import pytest
import zarr
from jaxtyping import Array, Float
from scipy.ndimage import map_coordinates

import jaxcryo
from jaxcryo.config import InferenceConfig, IntensityConfig
from jaxcryo.domain import VoxelGrid
from jaxcryo.project.copick import open_project, project_runs
from jaxcryo.recipes import recipe
from jaxcryo.runtime.manifest import ModelEntry
from jaxcryo.runtime.opened import OpenModel
from jaxcryo.tomogram.volumes import write_ome_zarr

SPACING = 10.012444
GRID = VoxelGrid(shape_zyx=(47, 47, 47), spacing_zyx_angstrom=(SPACING,) * 3)
FINE = 47 * SPACING / 60
"""7.84 Å: 60 such voxels are as long as 47 of the engines'."""
TYPES = (jaxcryo.ParticleType(name="ribosome", radius_angstrom=60, threshold=0.5),)
CENTERS = np.array([[8, 30, 12], [20, 10, 35], [24, 24, 24], [36, 38, 9], [40, 12, 40], [5, 6, 41]])


def dark(windows: Float[Array, "b d h w"]) -> Float[Array, "b c d h w"]:
    """Heatmaps of dark things, 1 where they are ten deviations below the mean."""
    return -windows[:, None] / 10 + 0 * jnp.sum(windows)


@pytest.fixture(scope="module")
def engines() -> Any:
    """A network that needs no weights, with the challenge's constants."""
    intensity, patch, stride = IntensityConfig(), (16, 24, 24), (12, 18, 18)
    model = dataclasses.replace(recipe("yu4u", "tiny", classes=1).model, patch_zyx=patch)
    entry = ModelEntry(
        name="fake", size="tiny", model=model, onnx_file="a.onnx", onnx_sha256="", weights_file="a.safetensors",
        weights_sha256="", precision="float32", types=TYPES, intensity=intensity, spacing_angstrom=SPACING,
        inference=InferenceConfig(stride_zyx=stride), source="", skewness=-2.0,
    )  # fmt: skip
    engine = OpenModel(
        name="fake", patch_zyx=patch, stride_zyx=stride, batch=4, classes=1, predict=dark, intensity=intensity
    )
    return jaxcryo.Models(entries=(entry,), models=(engine,), types=TYPES)


@pytest.fixture(scope="module")
def phantom() -> np.ndarray:
    """Dark Gaussians close to voxels' centres, on noise, on the scale of the challenge's tomograms."""
    rng = np.random.default_rng(0)
    centers = CENTERS + rng.uniform(-0.15, 0.15, CENTERS.shape)
    zyx = np.indices(GRID.shape_zyx)
    voxels = rng.normal(size=GRID.shape_zyx) * 0.05
    for center in centers:
        voxels -= 10 * np.exp(-sum((i - c) ** 2 for i, c in zip(zyx, center, strict=True)) / 2 / 2.5**2)
    return (voxels * IntensityConfig().std).astype(np.float32)


@pytest.fixture(scope="module")
def fine(phantom: np.ndarray) -> np.ndarray:
    """The phantom in smaller voxels, by SciPy's splines."""
    along = (np.arange(60) + 0.5) * FINE / SPACING - 0.5
    return map_coordinates(phantom, np.meshgrid(along, along, along, indexing="ij"), order=3, mode="nearest")


def write_mrc(path: pathlib.Path, voxels: np.ndarray, spacing: float) -> pathlib.Path:
    with mrcfile.new(path) as mrc:
        mrc.set_data(voxels.astype(np.float32))
        mrc.voxel_size = spacing
    return path


def sorted_positions(picks: jaxcryo.Picks) -> np.ndarray:
    return np.array(sorted(picks.xyz_angstrom.tolist()))


@pytest.mark.slow
def test_one_phantom_gives_the_same_picks_from_three_kinds_of_files(
    tmp_path: pathlib.Path, phantom: np.ndarray, fine: np.ndarray, engines: Any
) -> None:
    folder = tmp_path / "static/ExperimentRuns/R1/VoxelSpacing10.000"
    write_ome_zarr(folder / "denoised.zarr", phantom, (SPACING,) * 3)
    config = {"config_type": "filesystem", "pickable_objects": []}
    config |= {"static_root": f"local://{tmp_path / 'static'}", "overlay_root": f"file://{tmp_path / 'overlay'}"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (run,) = project_runs(open_project(tmp_path / "config.json"))
    group: Any = zarr.open_group(tmp_path / "R1.zarr", mode="w", zarr_format=3)
    group.create_array("s0", shape=(1, *phantom.shape), chunks=(1, 16, 16, 16), dtype="float32")[:] = phantom[None]
    axes = [{"name": "c", "type": "channel"}, *({"name": a, "type": "space", "unit": "nanometer"} for a in "zyx")]
    scale = [{"type": "scale", "scale": [1, *[SPACING / 10] * 3]}]
    dataset = {"path": "s0", "coordinateTransformations": scale}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [dataset]}]}
    mrc = write_mrc(tmp_path / "R1.mrc", fine, FINE)
    expected = GRID.to_angstrom(CENTERS)
    places: list[np.ndarray] = []
    for path in (run.volume_path, tmp_path / "R1.zarr", mrc):
        volume = jaxcryo.Volume.open(path)
        with warnings.catch_warnings():
            warnings.simplefilter("error" if path != mrc else "ignore")
            picks = jaxcryo.find(volume, engines)
        assert picks.counts() == {"ribosome": len(CENTERS)}
        distance = np.linalg.norm(picks.of("ribosome")[:, None] - expected, axis=2)
        assert np.abs(picks.of("ribosome") - expected[distance.argmin(axis=1)]).max() < volume.grid.spacing_angstrom / 2
        # not only within half a voxel, but at the very place: the positions are refined
        places.append(sorted_positions(picks))
        np.testing.assert_allclose(places[-1], places[0], atol=0.05)


@pytest.mark.slow
def test_what_is_done_to_a_volume_is_said(tmp_path: pathlib.Path, fine: np.ndarray, engines: Any) -> None:
    expected = jaxcryo.find(jaxcryo.Volume.open(write_mrc(tmp_path / "a.mrc", fine, SPACING)), engines)
    other = write_mrc(tmp_path / "b.mrc", 100 - fine / IntensityConfig().std, SPACING)
    with pytest.warns(UserWarning) as told:
        none = jaxcryo.find(jaxcryo.Volume.open(other), engines)
    messages = " ".join(str(w.message) for w in told)
    assert "b: " in messages and "--invert" in messages and "scale" in messages
    assert len(none) == 0
    with pytest.warns(UserWarning, match="scale") as told:
        picks = jaxcryo.find(jaxcryo.Volume.open(other), engines, invert=True)
    assert len(told) == 1 and len(picks) == len(expected) == len(CENTERS)
    with pytest.warns(UserWarning) as told:
        jaxcryo.find(jaxcryo.Volume.open(other, spacing_angstrom=FINE), engines, invert=True)
    assert re.search(r"7\.843.*10\.012 Å", str(told[-1].message))


def test_save(tmp_path: pathlib.Path, phantom: np.ndarray, engines: Any) -> None:
    volume = jaxcryo.Volume(name="R", voxels=phantom, grid=GRID)
    picks = jaxcryo.find(volume, engines)
    jaxcryo.save(picks, tmp_path / "a.csv")
    head, first, *_ = (tmp_path / "a.csv").read_text().splitlines()
    assert head.startswith("run,particle,x,y,z,score,") and first.startswith("R,ribosome,")
    with pytest.raises(jaxcryo.InputError, match="--force"):
        jaxcryo.save(picks, tmp_path / "a.csv")
    jaxcryo.save(picks, tmp_path / "a.csv", force=True)
    assert (tmp_path / "a.tbl") in jaxcryo.save(picks, tmp_path / "a.tbl", volume=volume)
    with pytest.raises(jaxcryo.InputError, match=r"apo-ferritin.*ribosome"):
        picks.of("apo-ferritin")


@pytest.mark.slow
def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    script = "import jaxcryo, sys; assert not {'jax', 'numpy', 'zarr', 'scipy'} & set(sys.modules); jaxcryo.find"
    subprocess.run([sys.executable, "-c", script], check=True)
    assert set(jaxcryo.__all__) <= set(dir(jaxcryo))
    with pytest.raises(AttributeError, match="fnid"):
        jaxcryo.fnid  # noqa: B018
