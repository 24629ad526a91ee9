"""Laws of drawn phantoms: one seed is one phantom, particles are where they are said to be, the wedge is empty."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import multiprocessing

import numpy as np
import pytest
import scipy.fft

from jaxcryo.domain import CZII_TYPES, ParticleType
from jaxcryo.errors import InputError
from jaxcryo.phantom import DrawConfig, draw_phantom
from jaxcryo.phantom.beads import packaged_beads
from jaxcryo.phantom.contents import draw_contents
from jaxcryo.phantom.microscope import wedge_weight
from jaxcryo.phantom.settings import REAL_CENTER, ContentRanges, ImagingRanges, draw_imaging
from jaxcryo.phantom.splatting import splat
from jaxcryo.phantom.structures import COMPANY
from jaxcryo.serialize import from_plain, to_plain

SHAPE = (24, 48, 56)
ALONE = ContentRanges(
    abundance=(30.0, 30.0),
    absent=0.0,
    clearance=(1.5, 1.5),
    clustering=(0.0, 0.0),
    fragments=(1e-9, 1e-9),
    company=(1e-9, 1e-9),
    aggregates=(1e-9, 1e-9),
    vesicles=(1e-9, 1e-9),
    filaments=(1e-9, 1e-9),
    gold=0.0,
    carbon=0.0,
    thickness_angstrom=(5000.0, 5001.0),
    oblique_degree=(0.0, 0.0),
)
CLEAR = dataclasses.replace(
    REAL_CENTER,
    snr=(1000.0, 1000.0),
    texture=(0.0, 0.0),
    shrinkage=(0.0, 0.0),
    halo=(1.0, 1.0),
    slow=(1e-4, 1e-4),
    streaks=(1e-4, 1e-4),
)


@pytest.mark.parametrize("family", ["house", "stranger"])
def test_a_seed_is_a_phantom(family: str) -> None:
    config = DrawConfig(family=family)
    first, again, other = (draw_phantom(config, s, SHAPE) for s in (3, 3, 4))
    assert first.voxels.dtype == np.float32 and first.voxels.shape == SHAPE and np.all(np.isfinite(first.voxels))
    np.testing.assert_array_equal(first.voxels, again.voxels)
    np.testing.assert_array_equal(first.centers_zyx_voxel, again.centers_zyx_voxel)
    assert first.imaging == again.imaging != other.imaging


@pytest.mark.slow
def test_the_process_does_not_matter() -> None:
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        there = pool.submit(draw_phantom, DrawConfig(), 7, SHAPE).result()
    np.testing.assert_array_equal(there.voxels, draw_phantom(DrawConfig(), 7, SHAPE).voxels)


def test_what_is_configured_is_written_and_read_back() -> None:
    config = DrawConfig(types=CZII_TYPES[:2], structures=("6pxm", ""), harshness=2.0)
    assert from_plain(DrawConfig, to_plain(config), "phantoms") == config


def test_centers_lie_inside_and_are_sorted_by_type() -> None:
    for seed in range(6):
        phantom = draw_phantom(DrawConfig(), seed, SHAPE)
        assert np.all(phantom.centers_zyx_voxel >= 0)
        assert np.all(phantom.centers_zyx_voxel <= np.asarray(SHAPE) - 1)
        assert np.all(np.diff(phantom.type_index) >= 0)


@pytest.mark.parametrize("spacing", [6.0, 10.0, 16.0])
@pytest.mark.parametrize("name", ["apo-ferritin", "ribosome"])
def test_the_center_of_mass_of_what_is_drawn_is_the_pick(spacing: float, name: str) -> None:
    type_ = next(t for t in CZII_TYPES if t.name == name)
    model = packaged_beads({"apo-ferritin": "6pxm", "ribosome": "6qzp"}[name])
    extent = np.full(3, 900.0)
    rng = np.random.default_rng(5)
    contents = draw_contents(ALONE, (1.0, 1.0), [(name, type_.radius_angstrom, model)], COMPANY_BEADS, extent, rng)
    inside = [c for c in contents.centers_zyx_angstrom if np.all((c > 180) & (c < extent - 180))] or [
        contents.centers_zyx_angstrom[0]
    ]
    reach = 1.3 * type_.radius_angstrom
    shape = (2 * int(np.ceil(reach / spacing)) + 1,) * 3
    axes = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    for center in inside[:2]:
        corner = np.floor((center - reach) / spacing)
        density = splat(shape, contents.points_zyx_angstrom / spacing - corner, contents.mass_kilodalton)
        near = np.linalg.norm(axes - (center / spacing - corner), axis=-1) * spacing < reach
        mass = np.where(near, density, 0)
        found = np.einsum("zyx,zyxc->c", mass, axes) / mass.sum() + corner
        np.testing.assert_allclose(found, center / spacing, atol=0.05)
        assert mass.sum() == pytest.approx(model.total_kilodalton, rel=0.01)


COMPANY_BEADS = [packaged_beads(n) for n in COMPANY[:2]]


def test_assemblies_nobody_has_seen_are_as_dense_as_known_ones() -> None:
    ranges = dataclasses.replace(ALONE, company=(400.0, 400.0), clearance=(0.1, 0.1))
    model, rng = COMPANY_BEADS[0], np.random.default_rng(3)
    contents = draw_contents(ranges, (1.0, 1.0), [], [model], np.full(3, 4000.0), rng)
    bodies = contents.points_zyx_angstrom.reshape(-1, *model.xyz_angstrom.shape)
    masses = contents.mass_kilodalton.reshape(len(bodies), -1).sum(axis=1) / model.total_kilodalton
    known, volumes = model.xyz_angstrom - model.xyz_angstrom.mean(axis=0), []
    for body in bodies:
        linear, *_ = np.linalg.lstsq(known, body[:, ::-1] - body[:, ::-1].mean(axis=0), rcond=None)
        volumes.append(abs(np.linalg.det(linear)))
    np.testing.assert_allclose(masses, volumes, rtol=1e-6)
    assert 0.3 < np.mean(np.isclose(masses, 1)) < 0.5
    assert masses.min() < 0.8 and masses.max() > 1.25


def test_particles_are_dark_where_they_are() -> None:
    types = (CZII_TYPES[0], CZII_TYPES[5])
    config = DrawConfig(types=types, imaging=CLEAR, contents=ALONE, center_share=0.0)
    checked = 0
    for seed in range(2):
        phantom = draw_phantom(config, seed, (32, 64, 64))
        middle, spread = np.median(phantom.voxels), phantom.voxels.std()
        z, y, x = np.meshgrid(*map(np.arange, (32, 64, 64)), indexing="ij")
        for center, index in zip(phantom.centers_zyx_voxel, phantom.type_index, strict=True):
            radius = 0.8 * types[index].radius_angstrom / 10
            if np.any(center < radius) or np.any(center > np.array([31, 63, 63]) - radius):
                continue
            inside = (z - center[0]) ** 2 + (y - center[1]) ** 2 + (x - center[2]) ** 2 < radius**2
            assert phantom.voxels[inside].mean() < middle - 0.2 * spread
            checked += 1
    assert checked


def test_the_wedge_is_empty_beyond_the_last_tilt() -> None:
    imaging = draw_imaging(dataclasses.replace(REAL_CENTER, tilt_step_degree=(3, 3)), np.random.default_rng(0), 1, 0)
    angle = np.array([[-80.0, -47.0, -46.5, 0.0, 30.0, 46.5, 60.0, 90.0]], np.float32)
    weight = wedge_weight(angle, np.full_like(angle, 1e-3), imaging, 100.0)
    assert np.all(weight[0, [0, 1, 2, 5, 6, 7]] == 0) and weight[0, 3] > 0.99 and 0.1 < weight[0, 4] < weight[0, 3]
    phantom = draw_phantom(DrawConfig(imaging=REAL_CENTER, center_share=0.0), 1, (64, 64, 96))
    window = np.hanning(64)[:, None, None] * np.hanning(96)
    power = np.abs(scipy.fft.rfftn((phantom.voxels - phantom.voxels.mean()) * window)) ** 2
    kz, kx = np.abs(np.fft.fftfreq(64))[:, None, None], np.fft.rfftfreq(96)
    far = np.broadcast_to((kz > np.tan(np.radians(62)) * kx + 0.04) & (kz < 0.4), power.shape)
    low = np.broadcast_to((kz < np.tan(np.radians(40)) * kx) & (kx < 0.3), power.shape)
    assert power[far].mean() < 0.02 * power[low].mean()


def test_near_the_real_center_everything_is_close_to_it() -> None:
    ranges = ImagingRanges()
    near = [draw_imaging(ranges, np.random.default_rng(s), 1.0, 1.0) for s in range(20)]
    wide = [draw_imaging(ranges, np.random.default_rng(s), 1.0, 0.0) for s in range(20)]
    center = REAL_CENTER.snr[0]
    assert max(abs(np.log(i.snr / center)) for i in near) < max(abs(np.log(i.snr / center)) for i in wide)
    harsh = draw_imaging(ranges, np.random.default_rng(0), 2.0, 1.0)
    assert harsh.snr == pytest.approx(near[0].snr / 2)
    assert dataclasses.replace(harsh, snr=near[0].snr) == near[0]


def test_signal_to_noise_is_what_is_asked_for() -> None:
    """A few apo-ferritins stand out four times as much where four times as much is asked for."""
    depths = []
    for snr in (2.0, 8.0):
        ranges = dataclasses.replace(CLEAR, snr=(snr, snr), slow=(0.02, 0.02))
        config = DrawConfig(types=CZII_TYPES[:1], imaging=ranges, contents=ALONE, center_share=0.0)
        phantom = draw_phantom(config, 2, (40, 64, 64))
        off = phantom.voxels - np.median(phantom.voxels)
        spread = 1.4826 * np.median(np.abs(off))
        boxes = [tuple(slice(max(0, a - 4), a + 5) for a in np.round(c).astype(int)) for c in phantom.centers_zyx_voxel]
        depths.append(-float(np.mean([off[box].mean() for box in boxes]) / spread))
    assert depths[0] > 0.1
    assert 2.8 < depths[1] / depths[0] < 5


def test_bytes_have_few_values_and_borders_are_even() -> None:
    ranges = dataclasses.replace(REAL_CENTER, bytes_share=1.0, scale=(1.0, 1.0))
    phantom = draw_phantom(DrawConfig(imaging=ranges, center_share=0.0), 0, SHAPE)
    assert len(np.unique(phantom.voxels)) <= 256
    ranges = dataclasses.replace(REAL_CENTER, border=1.0)
    drawn = [draw_phantom(DrawConfig(imaging=ranges, center_share=0.0), s, SHAPE) for s in range(6)]
    _, counts = np.unique(next(p for p in drawn if p.imaging.border != "grey").voxels, return_counts=True)
    assert counts.max() > 0.005 * np.prod(SHAPE)


def test_types_without_structures_and_with_files() -> None:
    types = (ParticleType(name="mystery", radius_angstrom=80), ParticleType(name="proteasome", radius_angstrom=85))
    config = DrawConfig(types=types, structures=("", "3j9i"))
    phantom = draw_phantom(config, 0, (32, 64, 64))
    assert phantom.type_index.max(initial=0) <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"types": ()}, "at least one"),
        ({"structures": ("6pxm",)}, "1 structures for 6"),
        ({"spacing_angstrom": 0.0}, "above 0"),
        ({"harshness": 0.0}, "harshness is 0"),
        ({"family": "uncle"}, "uncle"),
    ],
)
def test_senseless_values(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(DrawConfig(), **change)
    with pytest.raises(InputError, match="8 or more"):
        draw_phantom(DrawConfig(), 0, (4, 40, 40))
