"""A small tomogram with picks that a fake network found, its page, and a browser to open it in."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from jaxcryo.config import InferenceConfig, IntensityConfig
from jaxcryo.domain import CZII_TYPES, Picks, Volume, VoxelGrid
from jaxcryo.page import Overlay, Page, slice_images, write_page
from jaxcryo.picking.pipeline import find_picks
from jaxcryo.runtime.opened import OpenModel

TYPES = tuple(dataclasses.replace(t, threshold=h) for t, h in zip(CZII_TYPES[:3], (0.3, 0.3625, 0.5), strict=True))
FLOOR = 0.05
GRID = VoxelGrid(shape_zyx=(24, 90, 120), spacing_zyx_angstrom=(10.0, 10.0, 10.0))
NEEDED = ("chromium", "chromedriver")


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    """What is in the page, and the page."""

    volume: Volume
    truth: Picks
    picks: Picks
    heatmap: np.ndarray
    page: Page
    path: pathlib.Path


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Particles of three types, some of them missed, and false ones; the volume's voxels are codes of the heatmaps."""
    rng = np.random.default_rng(3)
    truth = _particles(rng, 24)
    near = truth.select(rng.random(24) < 0.8)
    wrong = _particles(rng, 30)
    zyx = GRID.to_voxel(np.concatenate([near.xyz_angstrom + rng.normal(0, 8, near.xyz_angstrom.shape),
                                        near.xyz_angstrom[:4] + 35, wrong.xyz_angstrom]))  # fmt: skip
    kind = np.concatenate([near.type_index, near.type_index[:4], wrong.type_index])
    height = rng.uniform(0.1, 1.0, len(kind))
    heatmap = _drawn(zyx, kind, height)
    volume = Volume(name="PH_000", voxels=_coded(heatmap), grid=GRID)
    overlay = Overlay(GRID.shape_zyx, len(TYPES), floor=FLOOR)
    picks = find_picks(volume, [_engine()], TYPES, config=InferenceConfig(), floor=FLOOR, on_slab=overlay.add)
    page = Page(
        run="PH_000",
        grid=GRID,
        types=TYPES,
        slices=slice_images(volume),
        overlay=overlay.images(),
        picks=picks,
        floor=FLOOR,
        truth=truth,
        record={"Network fake": {"weights": "none"}},
        commands=(("Anew:", "python infer.py --thresholds thresholds.json"),),
    )
    path = tmp_path_factory.mktemp("page") / "PH_000.html"
    write_page(path, page)
    return World(volume=volume, truth=truth, picks=picks, heatmap=heatmap, page=page, path=path)


def _particles(rng: np.random.Generator, count: int) -> Picks:
    extent = np.array(GRID.shape_zyx[::-1]) * 10.0
    return Picks(
        run="PH_000",
        types=TYPES,
        xyz_angstrom=rng.uniform(0.05, 0.95, (count, 3)) * extent,
        type_index=rng.integers(0, len(TYPES), count),
    )


def _drawn(zyx: np.ndarray, kind: np.ndarray, height: np.ndarray) -> np.ndarray:
    heatmap = np.zeros((len(TYPES), *GRID.shape_zyx), np.float32)
    voxels = np.indices(GRID.shape_zyx)
    for center, k, h in zip(zyx, kind, height, strict=True):
        distance2 = sum((i - c) ** 2 for i, c in zip(voxels, center, strict=True))
        np.maximum(heatmap[k], h * np.exp(-distance2 / (2 * 2.5**2)), out=heatmap[k])
    return heatmap


def _coded(heatmap: np.ndarray) -> np.ndarray:
    """Three values of 1/255 in one voxel, which float32 holds exactly."""
    levels = np.rint(heatmap * 255)
    return (levels[0] + 256 * levels[1] + 65536 * levels[2]).astype(np.float32)


def _decoded(windows: Float[Array, "b d h w"]) -> Float[Array, "b c d h w"]:
    code = jnp.rint(windows)
    return jnp.stack([jnp.floor(code / 256**i) % 256 / 255 for i in range(3)], axis=1)


def _engine() -> OpenModel:
    return OpenModel(
        name="fake",
        patch_zyx=(16, 48, 48),
        stride_zyx=(8, 24, 24),
        batch=4,
        classes=len(TYPES),
        predict=_decoded,
        intensity=IntensityConfig(mean=0.0, std=1.0),
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium that saves downloads in `downloads`."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    programs = {name: shutil.which(name) for name in NEEDED}
    missing = [name for name, path in programs.items() if path is None]
    assert not missing, f"{' and '.join(missing)} not found: apt-get install chromium chromium-driver"
    profile, downloads = tmp_path_factory.mktemp("profile"), tmp_path_factory.mktemp("downloads")
    options = Options()
    options.binary_location = str(programs["chromium"])
    for flag in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "disable-background-networking",
        "disable-component-update", "disable-sync", "no-first-run", "hide-scrollbars", f"user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(programs["chromedriver"]))
    driver.downloads = downloads
    yield driver
    driver.quit()
