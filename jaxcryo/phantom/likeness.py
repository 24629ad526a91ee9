"""How a tomogram was made, measured without picks, and phantoms drawn around that: `--like`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.fft
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.optimize import least_squares

from jaxcryo.domain import Volume
from jaxcryo.errors import InputError
from jaxcryo.phantom.microscope import noise_amplitude
from jaxcryo.phantom.settings import REAL_CENTER, ContentRanges, DrawConfig, Range
from jaxcryo.tomogram.statistics import surveyed

Power = Float[NDArray[np.float64], "kz ky kx"]

_BOX = 64
_BOXES = 32
_QUIETEST = 0.5
_TO_DEVIATION = 1.4826
_KNOTS = np.linspace(0, 0.5, 7)
_RADII = (0.06, 0.35)
_ANGLE_STEP_DEGREE = 3.0
_EMPTY = 0.08
"""Of the power near the plane: below it a direction counts as not measured."""
_LEAST_WEDGE = 0.6
_DARKEST_AT_CENTER = -11.3
_DARKEST_NOISE = -3.1
_MOST_SPACING_OFF = 0.02
_BRIGHT_SKEWNESS = 0.3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Filters:
    """What makes noise of a tomogram's spectrum; fields are those of `ImagingRanges`."""

    resolution_angstrom: float
    sharpness: float
    sirt: float
    highpass_angstrom: float
    noise_color_log10: tuple[float, ...]
    """What the four above leave over."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Likeness:
    """Measured on the quietest boxes of a tomogram, and on all of its voxels."""

    tilt_range_degree: float
    tilt_fade_degree: float
    axis_degree: float
    filters: Filters
    scale: float
    offset: float
    darkest: float
    """The 0.1 % quantile in robust deviations from the median."""
    skewness: float
    thickness_angstrom: float | None
    """Thickness of the ice; None if the slices do not show where it ends."""

    def __str__(self) -> str:
        ice = "ends of the ice not seen" if self.thickness_angstrom is None else f"ice {self.thickness_angstrom:.0f} Å"
        return (
            f"tilts to ±{self.tilt_range_degree:.0f}° fading over {self.tilt_fade_degree:.0f}°, axis "
            f"{self.axis_degree:+.0f}° from y, resolution {self.filters.resolution_angstrom:.0f} Å, "
            f"noise {self.scale:.3g}, darkest {self.darkest:.1f} deviations, {ice}"
        )


def measure(volume: Volume) -> Likeness:
    """Measures a tomogram; its particles need not be known, and should be few.

    Raises:
        InputError: it is too small, or holds nothing but filling.
    """
    shape = volume.grid.shape_zyx
    box = tuple(min(_BOX, n) for n in shape)
    if min(box) < 24:
        raise InputError(f"{volume.name}: is {shape}; expected 24 voxels or more along each axis to measure it")
    rng = np.random.default_rng(0)
    boxes = []
    for _ in range(_BOXES):
        start = [int(rng.integers(n - b + 1)) for n, b in zip(shape, box, strict=True)]
        voxels = np.asarray(volume.voxels[tuple(slice(s, s + b) for s, b in zip(start, box, strict=True))], np.float64)
        if np.all(np.isfinite(voxels)) and np.mean(voxels == np.median(voxels)) < 0.05:
            boxes.append(voxels)
    if len(boxes) < 3:
        raise InputError(f"{volume.name}: of {_BOXES} places fewer than three hold data; it cannot be measured")
    everything = np.stack([b[::3, ::3, ::3] for b in boxes])
    middle = float(np.median(everything))
    scale = float(_TO_DEVIATION * np.median(np.abs(everything - middle)))
    if scale <= 0:
        raise InputError(f"{volume.name}: more than half of its voxels are equal; it cannot be measured")
    quiet = sorted(boxes, key=lambda b: float(np.quantile(np.abs(b[::2, ::2, ::2] - middle), 0.99)))
    modes = _Modes.of(_mean_power(quiet[: max(3, int(_QUIETEST * len(quiet)))], middle, scale))
    axis = _axis(modes)
    ends, fade = _wedge(modes, axis)
    return Likeness(
        tilt_range_degree=ends,
        tilt_fade_degree=fade,
        axis_degree=axis,
        filters=_filters(modes, axis, ends, volume.grid.spacing_angstrom),
        scale=scale,
        offset=middle / scale,
        darkest=float((np.quantile(everything, 0.001) - middle) / scale),
        skewness=float(np.mean((everything - everything.mean()) ** 3) / everything.std() ** 3),
        thickness_angstrom=_thickness(volume, middle, scale),
    )


def like(
    config: DrawConfig, volumes: Sequence[Volume], *, note: Callable[[str], object] = lambda line: None
) -> DrawConfig:
    """Settings of phantoms around the measurements of some tomograms; each range spans all of them and a little more.

    Raises:
        InputError: as `measure` does.
    """
    spacings = [v.grid.spacing_angstrom for v in volumes]
    if max(spacings) > (1 + _MOST_SPACING_OFF) * min(spacings):
        sizes = ", ".join(f"{v.name} {s:.3f} Å" for v, s in zip(volumes, spacings, strict=True))
        raise InputError(f"the tomograms differ in voxel size ({sizes}); phantoms can be like those of one size")
    found = []
    for volume in volumes:
        found.append(measure(volume))
        note(f"{volume.name}: {found[-1]}")
        if found[-1].skewness > _BRIGHT_SKEWNESS:
            note(f"{volume.name}: bright things stand out in it; phantoms are dark, so pick in it with --invert")
    wide = config.imaging

    snr = [
        REAL_CENTER.snr[0]
        * float(np.clip((f.darkest - _DARKEST_NOISE) / (_DARKEST_AT_CENTER - _DARKEST_NOISE), 0.3, 2.0))
        for f in found
    ]
    filters = [f.filters for f in found]
    imaging = dataclasses.replace(
        wide,
        tilt_range_degree=_wider([f.tilt_range_degree for f in found], by=3.0),
        tilt_fade_degree=_wider([f.tilt_fade_degree for f in found], factor=1.2),
        axis_degree=_wider([f.axis_degree for f in found], by=4.0),
        axis_any=0.0,
        resolution_angstrom=_wider([f.resolution_angstrom for f in filters], factor=1.15),
        sharpness=_wider([f.sharpness for f in filters], factor=1.15),
        sirt=_wider([f.sirt for f in filters], by=0.15),
        highpass_angstrom=_wider([f.highpass_angstrom for f in filters], factor=1.3),
        noise_tint=0.4 * wide.noise_tint,
        noise_color_log10=tuple(np.mean([f.noise_color_log10 for f in filters], axis=0).tolist()),
        snr=_wider(snr, factor=1.8),
        scale=_wider([f.scale for f in found], factor=1.3),
        offset=_wider([f.offset for f in found], by=0.3),
    )
    return dataclasses.replace(
        config,
        imaging=imaging,
        contents=_contents(config.contents, found),
        center_share=0.0,
        spacing_angstrom=spacings[0],
    )


def like_files(
    config: DrawConfig,
    like_paths: Sequence[str],
    background_paths: Sequence[str],
    *,
    spacing_angstrom: float | None = None,
    note: Callable[[str], object] = lambda line: None,
) -> DrawConfig:
    """The configuration drawn around tomograms (`--like`), its particles put into tomograms (`--background`).

    Backgrounds are measured too, since particles must look as if imaged with them. Voxels get the tomograms' size, or
    the given one.

    Raises:
        InputError: as `measure` does, or sizes of voxels differ.
    """
    paths = list(dict.fromkeys([*like_paths, *background_paths]))
    if paths:
        volumes = [Volume.open(p, spacing_angstrom=spacing_angstrom) for p in paths]
        config = like(config, [surveyed(v, note=note) for v in volumes], note=note)
    elif spacing_angstrom is not None:
        config = dataclasses.replace(config, spacing_angstrom=spacing_angstrom)
    if background_paths:
        note("particles that are in the backgrounds already count as background; choose some that hold few of them")
    return dataclasses.replace(config, backgrounds=tuple(background_paths))


def _wider(values: Sequence[float], *, factor: float = 1.0, by: float = 0.0) -> Range:
    """From a little below the least to a little above the most."""
    return min(values) / factor - by, max(values) * factor + by


def _contents(contents: ContentRanges, found: Sequence[Likeness]) -> ContentRanges:
    thickness = [f.thickness_angstrom for f in found if f.thickness_angstrom is not None]
    if not thickness:
        return contents
    return dataclasses.replace(contents, thickness_angstrom=(0.85 * min(thickness), 1.15 * max(thickness)))


def _mean_power(boxes: Sequence[Float[NDArray[np.float64], "z y x"]], middle: float, scale: float) -> Power:
    window = np.ones(())
    for axis, size in enumerate(boxes[0].shape):
        window = window * np.hanning(size).reshape([-1 if a == axis else 1 for a in range(3)])
    total = 0.0
    for box in boxes:
        off = np.clip((box - middle) / scale, -4, 4)
        total = total + np.abs(scipy.fft.rfftn((off - off.mean()) * window)) ** 2
    return np.asarray(total / len(boxes), np.float64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Modes:
    """Frequencies of a real FFT in 1/voxel, and their power."""

    kz: NDArray[Any]
    ky: NDArray[Any]
    kx: NDArray[Any]
    radius: NDArray[Any]
    power: NDArray[Any]

    @classmethod
    def of(cls, power: Power) -> _Modes:
        kz = np.fft.fftfreq(power.shape[0])[:, None, None]
        ky = np.fft.fftfreq(power.shape[1])[None, :, None]
        kx = np.fft.rfftfreq(2 * (power.shape[2] - 1))[None, None, :]
        full = np.broadcast_arrays(kz, ky, kx, np.sqrt(kz**2 + ky**2 + kx**2), power)
        flat = (part.ravel().astype(np.float32) for part in full)
        return cls(**dict(zip(("kz", "ky", "kx", "radius", "power"), flat, strict=True)))

    def within(self, low: float, high: float) -> _Modes:
        """Those of a range of radii."""
        kept = (self.radius > low) & (self.radius < high)
        return _Modes(**{f.name: getattr(self, f.name)[kept] for f in dataclasses.fields(self)})

    def angle(self, axis_degree: float) -> NDArray[Any]:
        """From the plane in degrees, about the tilt axis."""
        turn = np.float32(np.radians(axis_degree))
        return np.degrees(np.arctan2(np.abs(self.kz), np.abs(self.kx * np.cos(turn) + self.ky * np.sin(turn))))


def _axis(modes: _Modes) -> float:
    """Where the tilt axis points, from y: about it the steepest directions are emptiest."""
    best, least, most = 0.0, np.inf, 0.0
    modes = modes.within(*_RADII)
    steep_anywhere = np.hypot(modes.kx, modes.ky) < 2.5 * np.abs(modes.kz)
    modes = _Modes(**{f.name: getattr(modes, f.name)[steep_anywhere] for f in dataclasses.fields(modes)})
    for candidate in np.arange(-88.0, 92.0, 4.0):
        steep = float(modes.power[modes.angle(float(candidate)) > 68].mean())
        most = max(most, steep)
        if steep < least:
            best, least = float(candidate), steep
    return best if least < _LEAST_WEDGE * most else 0.0


def _wedge(modes: _Modes, axis_degree: float) -> tuple[float, float]:
    """Where tilts end, and the angle at which their power has fallen to 1/e."""
    modes = modes.within(*_RADII)
    count = int(90 / _ANGLE_STEP_DEGREE)
    ring = ((modes.radius - _RADII[0]) / (_RADII[1] - _RADII[0]) * 8).astype(int)
    index = np.minimum((modes.angle(axis_degree) / _ANGLE_STEP_DEGREE).astype(int), count - 1)
    cells = np.bincount(ring * count + index, minlength=8 * count).reshape(8, count)
    sums = np.bincount(ring * count + index, modes.power, 8 * count).reshape(8, count)
    profile = sums / np.maximum(cells, 1)
    flat = profile[:, : int(12 / _ANGLE_STEP_DEGREE)].mean(axis=1, keepdims=True)
    relative = np.median(profile / np.maximum(flat, 1e-300), axis=0)
    middles = (np.arange(count) + 0.5) * _ANGLE_STEP_DEGREE
    seen = relative > _EMPTY
    ends = float(middles[np.flatnonzero(seen).max()] + 0.5 * _ANGLE_STEP_DEGREE) if seen.any() else 60.0
    inner = (middles > 8) & (middles < ends - 6)
    drop = -np.log(np.clip(relative[inner], 1e-3, 1.0))
    squares = middles[inner] ** 2
    slope = float((squares * drop).sum() / max(float((squares**2).sum()), 1e-30))
    fade = 90.0 if slope <= 1 / 90**2 else float(np.clip(slope**-0.5, 15.0, 90.0))
    return float(np.clip(ends, 20.0, 88.0)), fade


def _filters(modes: _Modes, axis_degree: float, ends: float, spacing: float) -> Filters:
    """The filters whose noise has this spectrum, and what they leave over."""
    inside = modes.angle(axis_degree) < 0.6 * ends
    edges = np.linspace(0.02, 0.5, 25)
    index = np.digitize(modes.radius[inside], edges) - 1
    kept = (index >= 0) & (index < len(edges) - 1)
    count = np.bincount(index[kept], minlength=len(edges) - 1)
    sums = np.bincount(index[kept], modes.power[inside][kept], len(edges) - 1)
    middles = 0.5 * (edges[1:] + edges[:-1])
    measured = 0.5 * np.log10(np.maximum(sums / np.maximum(count, 1), 1e-12))
    measured = np.maximum(measured, measured.max() - 3.0)

    def model(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        resolution, sharpness, sirt, highpass, height = parameters
        amplitude = noise_amplitude(
            middles, spacing, float(np.exp(resolution)), float(sharpness), float(sirt), float(np.exp(highpass))
        )
        # Directions differ in their distance from the axis; its mean square is two thirds of the radius'.
        return (
            np.log10(np.maximum(amplitude, 1e-6)) + 0.5 * REAL_CENTER.noise_ramp[0] * np.log10(0.8 * middles) + height
        )

    low = [np.log(1.5 * spacing), 1.2, -0.6, np.log(20 * spacing), -8.0]
    high = [np.log(12 * spacing), 8.0, 1.5, np.log(1000 * spacing), 12.0]
    start = [np.log(3 * spacing), 2.5, 0.3, np.log(60 * spacing), float(measured.max())]
    fit = least_squares(lambda p: model(p) - measured, np.clip(start, low, high), bounds=(low, high), loss="soft_l1")
    left = np.clip(measured - model(fit.x), -0.7, 0.7)
    resolution, sharpness, sirt, highpass, _ = (float(v) for v in fit.x)
    return Filters(
        resolution_angstrom=float(np.exp(resolution)),
        sharpness=sharpness,
        sirt=sirt,
        highpass_angstrom=float(np.exp(highpass)),
        noise_color_log10=tuple(np.interp(_KNOTS, middles, left).tolist()),
    )


def _thickness(volume: Volume, middle: float, scale: float) -> float | None:
    """From slices' dark tails: where there are none, there is no ice."""
    depth, height, width = volume.grid.shape_zyx
    step = max(1, depth // 48)
    rows, columns = (slice(n // 6, n - n // 6, max(1, n // 128)) for n in (height, width))
    tails = []
    for at in range(0, depth, step):
        plane = np.asarray(volume.voxels[at, rows, columns], np.float64)
        plane = plane[np.isfinite(plane)]
        tails.append(float(np.mean(plane < middle - 4 * scale)) if len(plane) else 0.0)
    smooth = np.convolve(np.pad(tails, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    top = float(np.quantile(smooth, 0.9))
    if top < 5e-4 or float(smooth.min()) > 0.25 * top:
        return None
    inside = np.flatnonzero(smooth > 0.25 * top)
    return float((inside.max() - inside.min() + 1) * step * volume.grid.spacing_angstrom)
