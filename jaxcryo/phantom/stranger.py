"""Another simulator, for evaluation only: projections of every tilt, and weighted back-projection.

It shares no imaging code with `microscope`: points are projected one tilt at a time, each image gets its own defocus
and noise, a ramp weights it, and real-space back-projection ends at a box of tilts. Denoising is by a Gaussian, a
median or nothing.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, median_filter
from scipy.sparse import csr_matrix

from jaxcryo.phantom.beads import BEAD_SIGMA_ANGSTROM, PROTEIN_KILODALTON_PER_ANGSTROM3, Points
from jaxcryo.phantom.contents import Contents
from jaxcryo.phantom.settings import DrawnImaging

Image = Float[NDArray[np.float32], "_y _x"]

_PAD = 16
_REFERENCE_RADIUS_ANGSTROM = 50.0
_REFERENCE_ROWS = 48


def image_by_tilts(
    contents: Contents,
    shape_zyx: tuple[int, int, int],
    spacing_angstrom: float,
    imaging: DrawnImaging,
    rng: np.random.Generator,
) -> Float[NDArray[np.float32], "z y x"]:
    """The tomogram of some contents; of `imaging` it takes defocus, signal to noise, tilt ends and steps."""
    low = -min(60.0, imaging.tilt_range_degree + 5) + 0.5 * imaging.tilt_asymmetry_degree
    tilts = np.arange(low, min(60.0, imaging.tilt_range_degree + 5), max(imaging.tilt_step_degree, 2.0))
    defoci = imaging.defocus_angstrom * (1 + imaging.defocus_spread * rng.standard_normal(len(tilts)))
    resolution = float(rng.uniform(20, 40))
    kilodalton_a_voxel = PROTEIN_KILODALTON_PER_ANGSTROM3 * spacing_angstrom**3
    points = contents.points_zyx_angstrom / spacing_angstrom
    mass = contents.mass_kilodalton / kilodalton_a_voxel
    depth, height, width = shape_zyx
    signal = np.zeros((depth, width, height), np.float32)
    noise = np.zeros_like(signal)
    reference = np.zeros((depth, width, _REFERENCE_ROWS), np.float32)
    center = (np.asarray(shape_zyx) - 1) / 2
    ball = _ball(rng, spacing_angstrom)
    middle = np.array([center[0], (_REFERENCE_ROWS - 1) / 2, center[2]])
    for tilt, defocus in zip(np.radians(tilts), defoci, strict=True):
        back = _back_projector(depth, width, float(tilt))
        transfer = _Transfer(float(defocus), spacing_angstrom, resolution, imaging.phases_flipped)
        projected = _project(points - center, mass, float(tilt), (height, width))
        signal += _spread(back, transfer.filtered(projected, of_signal=True), signal.shape)
        projected = _project(*ball, float(tilt), (_REFERENCE_ROWS, width))
        reference += _spread(back, transfer.filtered(projected, of_signal=True), reference.shape)
        white = rng.standard_normal((height + 2 * _PAD, width + 2 * _PAD), np.float32)
        white *= np.float32(1 / np.sqrt(np.cos(tilt)))
        noise += _spread(back, transfer.filtered(white, of_signal=False), noise.shape)
    at = np.round(middle).astype(int)
    response = float(np.mean(reference[at[0] - 1 : at[0] + 2, at[2] - 1 : at[2] + 2, at[1] - 1 : at[1] + 2]))
    spread = float(noise[::2, ::2, ::2].std())
    voxels = noise / spread - signal * np.float32(imaging.snr / max(abs(response), 1e-6))
    return np.ascontiguousarray(_denoised(voxels, rng).transpose(0, 2, 1), np.float32)


class _Transfer:
    """What a tilt's image goes through: the microscope's contrast, and the reconstruction's ramp and window."""

    def __init__(self, defocus_angstrom: float, spacing_angstrom: float, resolution_angstrom: float, flipped: bool):
        self.defocus, self.spacing = defocus_angstrom, spacing_angstrom
        self.resolution, self.flipped = resolution_angstrom, flipped

    def filtered(self, image: Image, *, of_signal: bool) -> Image:
        """The padded image after contrast (of a signal alone), ramp and window, without its padding."""
        ky = np.fft.fftfreq(image.shape[0], self.spacing)[:, None]
        kx = np.fft.rfftfreq(image.shape[1], self.spacing)[None]
        squared = ky**2 + kx**2
        factor = kx * self.spacing * np.exp(-squared * self.resolution**2)
        if of_signal:
            phase = np.pi * 0.0197 * self.defocus * squared - 0.5 * np.pi * 2.7e7 * 0.0197**3 * squared**2
            contrast = np.sin(phase + 0.07)
            contrast = np.abs(contrast) if self.flipped else contrast
            factor = factor * contrast * np.exp(-2 * np.pi**2 * BEAD_SIGMA_ANGSTROM**2 * squared)
        out = scipy.fft.irfft2(scipy.fft.rfft2(image) * factor.astype(np.float32), s=image.shape)
        return np.asarray(out[_PAD:-_PAD, _PAD:-_PAD], np.float32)


def _project(zyx: Points, mass: Float[NDArray[np.float64], " n"], tilt: float, shape_yx: tuple[int, int]) -> Image:
    """The padded image of points around the middle, seen at a tilt about y."""
    height, width = shape_yx[0] + 2 * _PAD, shape_yx[1] + 2 * _PAD
    x = zyx[:, 2] * np.cos(tilt) + zyx[:, 0] * np.sin(tilt) + (width - 1) / 2
    y = zyx[:, 1] + (height - 1) / 2
    inside = (x >= 0) & (x < width - 1) & (y >= 0) & (y < height - 1)
    x, y, mass = x[inside], y[inside], mass[inside]
    column, row = x.astype(np.int64), y.astype(np.int64)
    fx, fy = x - column, y - row
    out = np.zeros(height * width)
    for dy, wy in ((0, 1 - fy), (1, fy)):
        for dx, wx in ((0, 1 - fx), (1, fx)):
            out += np.bincount((row + dy) * width + column + dx, mass * wy * wx, height * width)
    return out.reshape(height, width).astype(np.float32)


def _back_projector(depth: int, width: int, tilt: float) -> csr_matrix:
    """From an image's columns to a slice's voxels (z, x), by linear interpolation."""
    z = np.arange(depth)[:, None] - (depth - 1) / 2
    x = np.arange(width)[None] - (width - 1) / 2
    at = (x * np.cos(tilt) + z * np.sin(tilt) + (width - 1) / 2).ravel()
    low = np.floor(at).astype(np.int64)
    off = at - low
    voxel = np.arange(depth * width)
    parts = []
    for column, weight in ((low, 1 - off), (low + 1, off)):
        kept = (column >= 0) & (column < width)
        parts.append((voxel[kept], column[kept], weight[kept]))
    rows, columns, weights = (np.concatenate(p) for p in zip(*parts, strict=True))
    return csr_matrix((weights.astype(np.float32), (rows, columns)), shape=(depth * width, width))


def _spread(back: csr_matrix, image: Image, shape: tuple[int, ...]) -> Float[NDArray[np.float32], "z x y"]:
    return np.asarray(back @ np.ascontiguousarray(image.T), np.float32).reshape(shape)


def _ball(rng: np.random.Generator, spacing: float) -> tuple[Points, Float[NDArray[np.float64], " n"]]:
    """A ball of protein in the middle, whose response is what signal to noise refers to."""
    points = rng.normal(size=(2000, 3))
    points *= rng.uniform(size=(2000, 1)) ** (1 / 3) / np.linalg.norm(points, axis=1, keepdims=True)
    volume = 4 / 3 * np.pi * (_REFERENCE_RADIUS_ANGSTROM / spacing) ** 3
    return points * (_REFERENCE_RADIUS_ANGSTROM / spacing), np.full(2000, volume / 2000)


def _denoised(
    voxels: Float[NDArray[np.float32], "z x y"], rng: np.random.Generator
) -> Float[NDArray[np.float32], "z x y"]:
    kind = rng.uniform()
    if kind < 0.35:
        return voxels
    if kind < 0.7:
        return gaussian_filter(voxels, float(rng.uniform(0.5, 1.2)))
    return median_filter(voxels, 3)
