"""The effects of microscope, reconstruction and denoising on a density."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

import numpy as np
import scipy.fft
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.domain import VoxelGrid
from jaxcryo.errors import InputError

Density = Float[NDArray[np.float32], "z y x"]
_Plane = Float[NDArray[np.float32], "ky kx"]
_Frequencies = Float[NDArray[np.float32], "..."]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optics:
    """The contrast transfer of a tomogram whose phases were flipped: |CTF| under an envelope."""

    voltage_kv: float = 300.0
    defocus_angstrom: float = 35000.0
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: float = 0.1
    resolution_angstrom: float = 26.0
    """Where the envelope has fallen to 1/e; a denoised tomogram keeps little beyond."""
    floor: float = 0.5
    """Added in quadrature: defocus differs between tilts and fills zeros, and denoising restores low frequencies."""

    @property
    def wavelength_angstrom(self) -> float:
        """Wavelength of the electrons, relativistic."""
        volts = 1e3 * self.voltage_kv
        return float(12.2643 / np.sqrt(volts * (1 + 0.978466e-6 * volts)))

    def transfer(self, squared_frequency: _Frequencies) -> _Frequencies:
        """The factor at squared spatial frequencies in 1/Å²."""
        wavelength = self.wavelength_angstrom
        aberration = 1e7 * self.spherical_aberration_mm
        phase = np.pi * wavelength * squared_frequency * self.defocus_angstrom
        phase = phase - 0.5 * np.pi * aberration * wavelength**3 * squared_frequency**2
        ctf = np.sin(phase + np.arcsin(self.amplitude_contrast))
        envelope = np.exp(-squared_frequency * self.resolution_angstrom**2)
        return np.asarray(np.sqrt((ctf**2 + self.floor**2) / (1 + self.floor**2)) * envelope, np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Imaging:
    """How a density becomes a tomogram; the defaults resemble the challenge's denoised ones."""

    tilt_range_degree: float = 60.0
    """Tilts from minus to plus this about y, the beam along z; 90 leaves no missing wedge."""
    wedge_edge_degree: float = 2.0
    """Width of the wedge's soft edge, which lies inside the measured range."""
    optics: Optics | None = Optics()
    noise: float = 0.105
    """Standard deviation of the noise at difficulty 1; protein's density is 1 before imaging."""
    grain_voxel: float = 3.2
    """Full width at half maximum of the noise's grain, which denoising leaves smooth."""
    slow_noise: float = 0.35
    """Share of the noise's amplitude that varies slowly (uneven ice, residual gradients)."""
    dark_protein: bool = True
    mean: float = 5.3e-8
    std: float = 7.2e-6

    def __post_init__(self) -> None:
        if not 0 < self.tilt_range_degree <= 90:
            raise InputError(f"the tilt range is ±{self.tilt_range_degree}°; expected more than 0 and up to 90")


def form_image(
    density: Density, grid: VoxelGrid, imaging: Imaging, seed: np.random.SeedSequence, noise: float
) -> Density:
    """The tomogram of a density, with the mean and standard deviation that `imaging` asks for.

    `noise` scales the noise; at 0 there is none. The density's memory is used up.
    """
    image = density
    filtered = imaging.optics is not None or imaging.tilt_range_degree < 90
    if filtered or noise > 0:
        workers = os.cpu_count() or 1
        spectrum = scipy.fft.rfftn(density, workers=workers)
        for i, (squared, wedge) in enumerate(_planes(grid, imaging)):
            transfer = wedge if imaging.optics is None else wedge * imaging.optics.transfer(squared)
            spectrum[i] *= transfer
        if noise > 0:
            grains = np.random.default_rng(seed).standard_normal(grid.shape_zyx, np.float32)
            grain_spectrum = scipy.fft.rfftn(grains, workers=workers)
            del grains
            norm = noise * imaging.noise / _noise_std(grid, imaging)
            for i, (squared, wedge) in enumerate(_planes(grid, imaging)):
                spectrum[i] += grain_spectrum[i] * (norm * wedge * _noise_transfer(squared, grid, imaging))
            del grain_spectrum
        image = scipy.fft.irfftn(spectrum, s=grid.shape_zyx, overwrite_x=True, workers=workers)
    return _to_intensities(image, imaging)


def _planes(grid: VoxelGrid, imaging: Imaging) -> Iterator[tuple[_Plane, _Plane]]:
    """For each plane of a real FFT along z: squared frequencies in 1/Å², and the missing wedge's mask."""
    shape, spacing = grid.shape_zyx, grid.spacing_zyx_angstrom
    kz = np.fft.fftfreq(shape[0], spacing[0]).astype(np.float32)
    ky = np.fft.fftfreq(shape[1], spacing[1]).astype(np.float32)[:, None]
    kx = np.fft.rfftfreq(shape[2], spacing[2]).astype(np.float32)
    for frequency in kz:
        squared = ky**2 + kx**2 + frequency**2
        if imaging.tilt_range_degree >= 90:
            yield squared, np.ones_like(squared)
            continue
        angle = np.degrees(np.arctan2(np.abs(frequency), kx))
        angle[(kx == 0) & (frequency == 0)] = 0
        edge = np.clip((imaging.tilt_range_degree - angle) / imaging.wedge_edge_degree, 0, 1)
        yield squared, np.broadcast_to(edge.astype(np.float32), squared.shape)


def _noise_transfer(squared_frequency: _Frequencies, grid: VoxelGrid, imaging: Imaging) -> _Frequencies:
    """The noise's color: a grain, which lacks low frequencies like the CTF, and a slow part."""
    spacing = grid.spacing_angstrom
    sigma = imaging.grain_voxel * spacing / 2.3548
    grain = np.exp(-2 * np.pi**2 * sigma**2 * squared_frequency)
    if imaging.optics is not None:
        wide = dataclasses.replace(imaging.optics, resolution_angstrom=0.0)
        grain = grain * wide.transfer(squared_frequency)
    slow = np.exp(-2 * np.pi**2 * (6 * spacing) ** 2 * squared_frequency)
    return np.asarray(grain + imaging.slow_noise * slow, np.float32)


def _noise_std(grid: VoxelGrid, imaging: Imaging) -> float:
    """The standard deviation that white noise of 1 has after the noise's filter, but for the missing wedge."""
    # One dimension of directions is enough, since the filter depends on the length alone.
    nyquist = 0.5 / grid.spacing_angstrom
    frequency = np.linspace(0, nyquist, 2000, dtype=np.float32)
    power = _noise_transfer(frequency**2, grid, imaging) ** 2
    share = float(np.trapezoid(power * 4 * np.pi * frequency**2, frequency)) / (2 * nyquist) ** 3
    return float(np.sqrt(share))


def _to_intensities(image: Density, imaging: Imaging) -> Density:
    """Shifts and scales to the wanted mean and standard deviation, in place; an even image becomes the mean."""
    mean = float(image.mean(dtype=np.float64))
    image -= np.float32(mean)
    std = float(np.sqrt(np.mean([np.mean(plane.astype(np.float64) ** 2) for plane in image])))
    factor = imaging.std / std if std > 0 else 0.0
    image *= np.float32(-factor if imaging.dark_protein else factor)
    image += np.float32(imaging.mean)
    return image
