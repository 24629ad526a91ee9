"""From a density to a tomogram in Fourier space: transfer, missing wedge, noise, filters."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import scipy.fft
from jaxtyping import Complex, Float, Int
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from jaxcryo.phantom.beads import BEAD_SIGMA_ANGSTROM
from jaxcryo.phantom.settings import DrawnImaging

Density = Float[NDArray[np.float32], "z y x"]
_Plane = Float[NDArray[np.float32], "ky kx"]
_Spectrum = Complex[NDArray[np.complex64], "kz ky kx"]

_WAVELENGTH_ANGSTROM = 0.0197
"""Of electrons at 300 kV."""
_SPHERICAL_ABERRATION_ANGSTROM = 2.7e7
_AMPLITUDE_CONTRAST = 0.08
_TABLE = 512
_REFERENCE_SIGMA_ANGSTROM = 25.0
_WEDGE_EDGE_DEGREE = 2.5
_BRIGHTEST_NOISE = 2.0


def image(
    density: Density, spacing_angstrom: float, imaging: DrawnImaging, rng: np.random.Generator, thickness_voxel: float
) -> Density:
    """The tomogram of a density of protein's interior 1 on the quadratic splines of `splatting`; protein is dark.

    In units of the noise's deviation, before scale and offset.
    """
    shape = density.shape
    noise = rng.standard_normal(shape, np.float32)
    if imaging.texture > 0:
        noise *= 1 + imaging.texture * np.clip(density, 0, 2)
    spectrum = scipy.fft.rfftn(density)
    noise_spectrum = scipy.fft.rfftn(noise)
    del noise
    _transfer(spectrum, noise_spectrum, shape, spacing_angstrom, imaging, thickness_voxel)
    _add_slow(noise_spectrum, shape, imaging, np.random.default_rng(rng.integers(2**63)), thickness_voxel)
    spectrum += noise_spectrum
    del noise_spectrum
    out = scipy.fft.irfftn(spectrum, s=shape, overwrite_x=True)
    if imaging.shrinkage > 0:
        out = _shrunk(out, imaging.shrinkage)
    if imaging.halo < 1:
        _soften_halos(out, imaging.halo)
    return np.asarray(out, np.float32)


def image_without_noise(
    density: Density, spacing_angstrom: float, imaging: DrawnImaging, thickness_voxel: float
) -> Density:
    """What `image` adds to noise of deviation 1, for backgrounds that have their own."""
    spectrum = scipy.fft.rfftn(density)
    _transfer(spectrum, None, density.shape, spacing_angstrom, imaging, thickness_voxel)
    return np.asarray(scipy.fft.irfftn(spectrum, s=density.shape, overwrite_x=True), np.float32)


def _transfer(
    spectrum: _Spectrum,
    noise: _Spectrum | None,
    shape: tuple[int, ...],
    spacing: float,
    imaging: DrawnImaging,
    thickness_voxel: float,
) -> None:
    """Contrast, wedge and filters, in place: white noise gets the deviation 1, a body of 100 Å the depth drawn."""
    tables = _Tables.of(imaging, spacing)
    whole, seen, total = 0.0, 0.0, 0.0
    for i, plane in enumerate(_planes(shape, imaging, thickness_voxel)):
        at = tables.index(plane.radius)
        spectrum[i] *= plane.wedge * tables.signal_values[at] * plane.inverse_spline
        whole += _sum_of_real(tables.ball_values[at])
        seen += _sum_of_real(plane.wedge * tables.seen_values[at])
        if noise is not None:
            noise[i] *= plane.wedge * tables.noise(tables.index(plane.grain), plane.axial)
            total += _sum_of_real(np.abs(noise[i]) ** 2)
    spectrum *= np.float32(-imaging.snr / max(abs(seen / whole), 0.02))
    if noise is not None:
        noise *= np.float32(np.prod(shape) / np.sqrt(max(total, 1e-30)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _FourierPlane:
    """One kz of a real FFT; frequencies are in 1/voxel."""

    wedge: _Plane
    radius: _Plane
    grain: _Plane
    """The radius that noise's filters see."""
    axial: _Plane
    """Distance from the tilt axis."""
    inverse_spline: _Plane


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Tables:
    """Radial factors at even steps of frequency up to the corner, in 1/voxel."""

    step: float
    signal_values: Float[NDArray[np.float32], " r"]
    noise_values: Float[NDArray[np.float32], " r"]
    ball_values: Float[NDArray[np.float32], " r"]
    """A body of about 100 Å, which signal to noise refers to, before imaging."""
    seen_values: Float[NDArray[np.float32], " r"]
    """And after it, but for the wedge."""
    ramp: float

    @classmethod
    def of(cls, imaging: DrawnImaging, spacing: float) -> _Tables:
        k = np.linspace(0, 0.9, _TABLE)
        q = k / spacing
        envelope = noise_amplitude(
            k, spacing, imaging.resolution_angstrom, imaging.sharpness, imaging.sirt, imaging.highpass_angstrom
        )
        tint = np.interp(k, np.linspace(0, 0.5, len(imaging.noise_tint_log10)), imaging.noise_tint_log10)
        beads = np.exp(-2 * np.pi**2 * BEAD_SIGMA_ANGSTROM**2 * q**2)
        transfer = _contrast_transfer(q, imaging)
        ball = np.exp(-2 * np.pi**2 * _REFERENCE_SIGMA_ANGSTROM**2 * q**2)
        return cls(
            step=float(k[1]),
            signal_values=(transfer * envelope * beads).astype(np.float32),
            noise_values=(envelope * 10**tint).astype(np.float32),
            ramp=imaging.noise_ramp,
            ball_values=ball.astype(np.float32),
            seen_values=(ball * transfer * envelope).astype(np.float32),
        )

    def index(self, radius: _Plane) -> Int[NDArray[np.int32], "ky kx"]:
        """Where in the tables a frequency is."""
        return (radius * np.float32(1 / self.step) + np.float32(0.5)).astype(np.int32)

    def noise(self, at: Int[NDArray[np.int32], "ky kx"], axial: _Plane) -> _Plane:
        """The noise's factor, which a ramp gives some direction."""
        ramp = np.sqrt(np.maximum(axial, 0.004)) ** np.float32(self.ramp)
        return np.asarray(self.noise_values[at] * ramp, np.float32)


def noise_amplitude(
    frequency: Float[NDArray[np.float64], " r"],
    spacing_angstrom: float,
    resolution_angstrom: float,
    sharpness: float,
    sirt: float,
    highpass_angstrom: float,
) -> Float[NDArray[np.float64], " r"]:
    """What filters leave of an amplitude at frequencies in 1/voxel."""
    q = frequency / spacing_angstrom
    low = np.exp(-((q * resolution_angstrom) ** sharpness))
    color = np.maximum(frequency, 0.01) ** -sirt * 0.1**sirt
    return np.asarray(low * color * (1 - np.exp(-((q * highpass_angstrom) ** 2))), np.float64)


def _sum_of_real(half: _Plane) -> float:
    """The sum over a whole plane of frequencies of which a real FFT keeps half."""
    return 2 * float(half.sum(dtype=np.float64)) - float(half[:, 0].sum(dtype=np.float64))


def _contrast_transfer(q: Float[NDArray[np.float64], " r"], imaging: DrawnImaging) -> Float[NDArray[np.float64], " r"]:
    """Averaged over the defoci of a tomogram: by amplitude if phases were flipped, else with its sign."""
    values = []
    for off in (-1.5, -0.75, 0.0, 0.75, 1.5):
        defocus = imaging.defocus_angstrom * (1 + off * imaging.defocus_spread)
        phase = np.pi * _WAVELENGTH_ANGSTROM * defocus * q**2
        phase = phase - 0.5 * np.pi * _SPHERICAL_ABERRATION_ANGSTROM * _WAVELENGTH_ANGSTROM**3 * q**4
        ctf = np.sin(phase + np.arcsin(_AMPLITUDE_CONTRAST))
        values.append(np.abs(ctf) if imaging.phases_flipped else ctf)
    mean = np.average(values, axis=0, weights=(0.33, 0.75, 1.0, 0.75, 0.33))
    floor = imaging.ctf_floor
    if imaging.phases_flipped:
        mean = np.sqrt(mean**2 + floor**2) / np.sqrt(1 + floor**2)
    return np.asarray(mean, np.float64)


def _planes(shape: tuple[int, ...], imaging: DrawnImaging, thickness_voxel: float) -> Iterator[_FourierPlane]:
    """For each kz."""
    kz = np.fft.fftfreq(shape[0]).astype(np.float32)
    ky = np.fft.fftfreq(shape[1]).astype(np.float32)[:, None]
    kx = np.fft.rfftfreq(shape[2]).astype(np.float32)[None]
    turn = np.radians(imaging.axis_degree)
    across = (kx * np.float32(np.cos(turn)) + ky * np.float32(np.sin(turn))).astype(np.float32)
    along = (ky * np.float32(np.cos(turn)) - kx * np.float32(np.sin(turn))) ** 2
    grain_along = along * np.float32(imaging.noise_across**2)
    spline = np.sinc(ky) ** 3 * np.sinc(kx) ** 3
    for frequency in kz:
        axial = np.sqrt(across**2 + frequency**2)
        angle = np.degrees(np.arctan2(np.where(across < 0, -frequency, frequency), np.abs(across)))
        wedge = wedge_weight(angle, axial, imaging, thickness_voxel)
        wedge[(axial < 1e-6)] = 1.0
        inverse = (1 / (np.float32(np.sinc(frequency) ** 3) * spline)).astype(np.float32)
        yield _FourierPlane(
            wedge=wedge,
            radius=np.sqrt(along + axial**2),
            grain=np.sqrt(grain_along + axial**2),
            axial=axial,
            inverse_spline=inverse,
        )


def wedge_weight(angle_degree: _Plane, axial: _Plane, imaging: DrawnImaging, thickness_voxel: float) -> _Plane:
    """Amplitude that a direction of Fourier space has: ends of the tilts, fading tilts, and gaps between tilts."""
    low = -imaging.tilt_range_degree + 0.5 * imaging.tilt_asymmetry_degree
    high = imaging.tilt_range_degree + 0.5 * imaging.tilt_asymmetry_degree
    edge = np.clip((angle_degree - low) / _WEDGE_EDGE_DEGREE, 0, 1) * np.clip(
        (high - angle_degree) / _WEDGE_EDGE_DEGREE, 0, 1
    )
    if imaging.tilt_fade_degree < 89:
        edge *= np.exp(-0.5 * (angle_degree / np.float32(imaging.tilt_fade_degree)) ** 2)
    step = imaging.tilt_step_degree
    off = (np.mod(angle_degree / step, 1) - 0.5) * np.float32(np.radians(step))
    gap = np.exp(-2 * (off * axial * np.float32(min(thickness_voxel, 60.0))) ** 2)
    return np.asarray(edge * gap, np.float32)


def _add_slow(
    spectrum: _Spectrum,
    shape: tuple[int, ...],
    imaging: DrawnImaging,
    rng: np.random.Generator,
    thickness_voxel: float,
) -> None:
    """Streaks along the tilt axis and slow waves, in place, each with its deviation against the noise's 1."""
    kz = np.abs(np.fft.fftfreq(shape[0]).astype(np.float32))
    ky = np.fft.fftfreq(shape[1]).astype(np.float32)[:, None]
    kx = np.fft.rfftfreq(shape[2]).astype(np.float32)[None]
    turn = np.radians(imaging.axis_degree)
    across = kx * np.float32(np.cos(turn)) + ky * np.float32(np.sin(turn))
    along = ky * np.float32(np.cos(turn)) - kx * np.float32(np.sin(turn))
    size = float(np.prod(shape))
    for kind, deviation in (("streaks", imaging.streaks), ("slow", imaging.slow)):
        planes, total = [], 0.0
        index = [i for i in range(shape[0]) if kz[i] < (0.2 if kind == "streaks" else 0.05)]
        for i in index:
            axial = np.sqrt(across**2 + kz[i] ** 2)
            angle = np.degrees(np.arctan2(kz[i], np.abs(across)))
            wedge = wedge_weight(angle, axial, imaging, thickness_voxel)
            if kind == "streaks":
                shaped = np.exp(-0.5 * (along / 0.02) ** 2) * np.exp(-((axial / 0.25) ** 2)) * wedge
            else:
                shaped = np.exp(-0.5 * ((across**2 + along**2 + kz[i] ** 2) / 0.015**2)) * wedge
            white = rng.standard_normal((2, *shaped.shape), np.float32)
            plane = (white[0] + 1j * white[1]) * shaped
            planes.append(plane)
            total += 2 * float((np.abs(plane) ** 2).sum())
        factor = np.float32(deviation * size / np.sqrt(max(total, 1e-30)))
        for i, plane in zip(index, planes, strict=True):
            spectrum[i] += factor * plane
    spectrum[0, 0, 0] = 0


def _shrunk(voxels: Density, amount: float) -> Density:
    """Quiet places made quieter: what is strong against its surroundings' noise stays as it is."""
    middle = float(np.median(voxels[:: max(1, len(voxels) // 16), ::3, ::3]))
    off = voxels - np.float32(middle)
    energy = uniform_filter(off**2, 5)
    quiet = float(np.median(energy[:: max(1, len(energy) // 16), ::3, ::3]))
    keep = energy / (energy + 4 * quiet)
    return np.asarray(middle + off * (1 - amount + amount * keep), np.float32)


def _soften_halos(voxels: Density, halo: float) -> None:
    """What is brighter than noise may be keeps a share of its excess, in place."""
    sample = voxels[::3, ::3, ::3]
    middle = float(np.median(sample))
    limit = np.float32(middle + _BRIGHTEST_NOISE * 1.4826 * float(np.median(np.abs(sample - middle))))
    np.minimum(voxels, limit + np.float32(halo) * (voxels - limit), out=voxels)
