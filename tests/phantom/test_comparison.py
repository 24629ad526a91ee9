"""What the statistics of planes say of fields whose statistics are known."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import scipy.fft
from scipy.ndimage import gaussian_filter

from jaxcryo.errors import InputError
from jaxcryo.phantom.comparison import comparison_table, draw_planes, plane_statistics, planes_of, read_planes


def noise(shape: tuple[int, int, int] = (96, 96, 96)) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def test_white_noise_has_nothing_to_say() -> None:
    told = plane_statistics(planes_of(noise()))
    for values in (told.autocorrelation_x, told.autocorrelation_y, told.autocorrelation_z, told.power_xy_log10):
        np.testing.assert_allclose(values, 0, atol=0.1)
    assert min(told.wedge_power) > 0.7
    assert told.skewness == pytest.approx(0, abs=0.05) and told.spread == pytest.approx(1, abs=0.02)
    assert told.low == pytest.approx(-3.09, abs=0.2) and told.high == pytest.approx(3.09, abs=0.2)


def test_smoothing_along_one_axis_shows_on_that_axis() -> None:
    smooth = gaussian_filter(noise(), (1.0, 0, 0))
    told = plane_statistics(planes_of(smooth))
    assert told.autocorrelation_z[0] == pytest.approx(np.exp(-1 / 4), abs=0.05)
    assert abs(told.autocorrelation_x[0]) < 0.05 and abs(told.autocorrelation_y[0]) < 0.05


def test_an_empty_wedge_shows_and_its_edge_is_where_it_is() -> None:
    spectrum = np.fft.rfftn(noise())
    kz, kx = np.abs(np.fft.fftfreq(96))[:, None, None], np.fft.rfftfreq(96)
    spectrum[np.broadcast_to(kz > kx, spectrum.shape)] = 0
    told = plane_statistics(planes_of(scipy.fft.irfftn(spectrum, s=(96, 96, 96))))
    assert min(told.wedge_power[:8]) > 0.5 and max(told.wedge_power[10:]) < 0.1


@pytest.mark.slow
def test_dark_bodies_show_in_the_tail() -> None:
    even = plane_statistics(planes_of(noise() * 3e-6))
    dark = noise()
    dark[::4, 3::9, 5::9] -= 12
    told = plane_statistics(planes_of(dark * 3e-6, 95))
    assert told.low < -10 and told.low < 2 * even.low and abs(told.high - even.high) < 0.3
    assert told.skewness < even.skewness - 0.3 and told.spread > even.spread + 0.02
    assert told.robust_deviation == pytest.approx(3e-6, rel=0.05)


def test_planes_come_from_a_file_and_are_put_side_by_side(tmp_path: pathlib.Path) -> None:
    planes = planes_of(noise((64, 64, 64)))
    np.savez(tmp_path / "planes.npz", **planes)
    given = read_planes(tmp_path / "planes.npz")
    assert set(given) == set(planes)
    table = comparison_table(plane_statistics(given), [plane_statistics(planes)])
    rows = table.splitlines()
    assert [r.split()[1:] for r in rows if r.startswith("  given")] == [
        r.split()[1:] for r in rows if r.startswith("  phantoms")
    ]
    draw_planes(tmp_path / "planes.png", [("given", given), ("phantom", planes)])
    assert (tmp_path / "planes.png").stat().st_size > 10_000


def test_other_files_are_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"a\.npz"):
        read_planes(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", xy_1=np.zeros((64, 64)))
    with pytest.raises(InputError, match="xz_"):
        read_planes(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", xy_1=np.zeros((8, 8)), xz_1=np.zeros((64, 64)), yz_1=np.zeros((64, 64)))
    with pytest.raises(InputError, match="32 × 32"):
        read_planes(tmp_path / "c.npz")
