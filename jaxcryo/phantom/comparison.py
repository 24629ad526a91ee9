"""Figures measured on planes of a tomogram, compared with those of phantoms: `jaxcryo phantom compare`."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.domain import Volume
from jaxcryo.errors import InputError
from jaxcryo.phantom.drawing import draw_phantom
from jaxcryo.phantom.settings import DrawConfig

Plane = Float[NDArray[np.float64], "_rows _columns"]
Planes = Mapping[str, Plane]
"""By name: `xy_…` rows y, columns x; `xz_…` rows z, columns x; `yz_…` rows z, columns y."""

_TO_DEVIATION = 1.4826
_OUTLIER_MADS = 4.0
_CLIP_DEVIATIONS = 3.0
_ANGLE_STEP_DEGREE = 5
_ANGLE_FREQUENCIES = (0.06, 0.35)
_BINS = 16
_LAGS = (1, 2, 3, 4)
_KINDS = ("xy", "xz", "yz")
_MOST_PLANES = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlaneStatistics:
    """Numbers that tell tomograms apart, from planes of them."""

    wedge_power: tuple[float, ...]
    """Power in xz by angle from x, in steps of 5°, the largest being 1."""
    autocorrelation_x: tuple[float, ...]
    """At 1, 2, 3, 4 voxels, of pairs that are both within four median deviations."""
    autocorrelation_y: tuple[float, ...]
    autocorrelation_z: tuple[float, ...]
    power_xy_log10: tuple[float, ...]
    """By frequency, in sixteen bins up to a half per voxel, against the second."""
    skewness: float
    low: float
    """The 0.1 % quantile in robust deviations from the median; `high` the 99.9 %."""
    high: float
    spread: float
    """Deviation over robust deviation."""
    robust_deviation: float

    def rows(self) -> list[tuple[str, tuple[float, ...]]]:
        """Names and numbers, as they are printed."""
        return [
            ("power in xz by angle from x, steps of 5°", self.wedge_power),
            ("autocorrelation at 1, 2, 3, 4 voxels: x", self.autocorrelation_x),
            ("  y", self.autocorrelation_y),
            ("  z", self.autocorrelation_z),
            ("log10 power in xy by frequency", self.power_xy_log10),
            ("skewness", (self.skewness,)),
            ("0.1 % and 99.9 % in robust deviations", (self.low, self.high)),
            ("deviation over robust deviation", (self.spread,)),
        ]


def read_planes(path: pathlib.Path) -> dict[str, Plane]:
    """The planes of an .npz whose arrays are named `xy_…`, `xz_…` and `yz_…`.

    Raises:
        InputError: it is not such a file, or one of the three kinds is missing.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            names = [n for n in file.files if n[:2] in _KINDS][:_MOST_PLANES]
            planes = {n: np.asarray(file[n], np.float64) for n in names}
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: is not an .npz of planes ({str(error)[:200]})") from error
    missing = [k for k in _KINDS if not any(n.startswith(k) for n in planes)]
    if missing:
        raise InputError(f"{path}: has no plane named {', '.join(m + '_…' for m in missing)}")
    for name, plane in planes.items():
        if plane.ndim != 2 or min(plane.shape) < 2 * _BINS or not np.all(np.isfinite(plane)):
            raise InputError(f"{path}: {name} is {plane.shape}; expected finite planes of 32 × 32 or more")
    return planes


def planes_of(voxels: Float[NDArray[np.float32], "z y x"], count: int = 3) -> dict[str, Plane]:
    """Evenly spread planes of a volume, `count` of each kind."""
    planes = {}
    for kind, axis in (("xy", 0), ("xz", 1), ("yz", 2)):
        size = voxels.shape[axis]
        for at in np.linspace(0, size, count + 2)[1:-1].astype(int):
            planes[f"{kind}_{at}"] = np.take(voxels, at, axis).astype(np.float64)
    return planes


def plane_statistics(planes: Planes) -> PlaneStatistics:
    """The numbers of some planes, kinds averaged."""
    of = {kind: [p for n, p in planes.items() if n.startswith(kind)] for kind in _KINDS}
    everything = np.concatenate([p.ravel() for p in planes.values()])
    middle = np.median(everything)
    robust = float(_TO_DEVIATION * np.median(np.abs(everything - middle))) or 1e-30
    off = everything - everything.mean()
    deviation = float(off.std()) or 1e-30
    low, high = (np.quantile(everything, (0.001, 0.999)) - middle) / robust
    return PlaneStatistics(
        wedge_power=_by_angle(of["xz"]),
        autocorrelation_x=_autocorrelations([(p, 1) for p in (*of["xy"], *of["xz"])]),
        autocorrelation_y=_autocorrelations([(p, 0) for p in of["xy"]] + [(p, 1) for p in of["yz"]]),
        autocorrelation_z=_autocorrelations([(p, 0) for p in (*of["xz"], *of["yz"])]),
        power_xy_log10=_by_frequency(of["xy"]),
        skewness=float(np.mean(off**3) / deviation**3),
        low=float(low),
        high=float(high),
        spread=deviation / robust,
        robust_deviation=robust,
    )


def _power(plane: Plane) -> Plane:
    """Of a plane without outliers, under a Hann window."""
    spread = _CLIP_DEVIATIONS * plane.std()
    clipped = np.clip(plane, plane.mean() - spread, plane.mean() + spread)
    clipped = (clipped - clipped.mean()) * np.hanning(plane.shape[0])[:, None] * np.hanning(plane.shape[1])
    return np.abs(np.fft.fft2(clipped)) ** 2


def _frequencies(plane: Plane) -> tuple[Plane, Plane]:
    rows, columns = (np.fft.fftfreq(n) for n in plane.shape)
    return rows[:, None] + 0 * columns, columns[None] + 0 * rows[:, None]


def _mean_in(power: Plane, index: NDArray[np.int64], count: int) -> Float[NDArray[np.float64], " n"]:
    kept = index < count
    total = np.bincount(index[kept], power[kept], count)
    return total / np.maximum(np.bincount(index[kept], minlength=count), 1)


def _by_angle(planes: Sequence[Plane]) -> tuple[float, ...]:
    count = 90 // _ANGLE_STEP_DEGREE
    rows = []
    for plane in planes:
        kz, kx = _frequencies(plane)
        radius = np.hypot(kz, kx)
        angle = np.degrees(np.arctan2(np.abs(kz), np.abs(kx)))
        index = np.minimum(angle // _ANGLE_STEP_DEGREE, count - 1).astype(np.int64)
        index[(radius <= _ANGLE_FREQUENCIES[0]) | (radius > _ANGLE_FREQUENCIES[1])] = count
        rows.append(_mean_in(_power(plane), index, count))
    mean = np.mean(rows, axis=0)
    return tuple((mean / max(float(mean.max()), 1e-300)).tolist())


def _by_frequency(planes: Sequence[Plane]) -> tuple[float, ...]:
    rows = []
    for plane in planes:
        radius = np.hypot(*_frequencies(plane))
        rows.append(_mean_in(_power(plane), (radius * 2 * _BINS).astype(np.int64), _BINS))
    mean = np.log10(np.maximum(np.mean(rows, axis=0), 1e-300))
    return tuple((mean - mean[1]).tolist())


def _autocorrelations(planes: Sequence[tuple[Plane, int]]) -> tuple[float, ...]:
    return tuple(float(np.mean([_autocorrelation(p, axis, lag) for p, axis in planes])) for lag in _LAGS)


def _autocorrelation(plane: Plane, axis: int, lag: int) -> float:
    lines = np.moveaxis(plane, axis, -1)
    off = lines - np.median(lines)
    limit = _OUTLIER_MADS * np.median(np.abs(off))
    a, b = off[..., :-lag], off[..., lag:]
    kept = (np.abs(a) < limit) & (np.abs(b) < limit)
    if np.count_nonzero(kept) < 3:
        return 0.0
    a, b = a[kept] - a[kept].mean(), b[kept] - b[kept].mean()
    norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 0.0


def given_planes(path: pathlib.Path) -> dict[str, Plane]:
    """The planes of an .npz, or three of each kind from a tomogram's middle, no larger than 256 voxels.

    Raises:
        InputError: as `read_planes` and `Volume.open` do.
    """
    if path.suffix.lower() == ".npz":
        return read_planes(path)
    volume = Volume.open(path)
    box = tuple(slice(max(0, n // 2 - 128), n // 2 + 128) for n in volume.grid.shape_zyx)
    voxels = volume.read_box(*box)
    if min(voxels.shape) < 2 * _BINS:
        raise InputError(f"{path}: is {voxels.shape}; expected {2 * _BINS} voxels or more along each axis")
    return planes_of(voxels)


def compare_phantoms(given: Planes, config: DrawConfig, *, count: int, seed: int, picture: pathlib.Path) -> str:
    """The table of given planes beside those of `count` phantoms, and the picture of three of them."""
    if count < 1:
        raise InputError(f"--phantoms is {count}; expected 1 or more")
    made = [planes_of(draw_phantom(config, (seed, i)).voxels) for i in range(count)]
    draw_planes(picture, [("given", given), *((f"phantom {i}", p) for i, p in enumerate(made[:3]))])
    return comparison_table(plane_statistics(given), [plane_statistics(p) for p in made])


def comparison_table(real: PlaneStatistics, phantoms: Sequence[PlaneStatistics]) -> str:
    """Row by row: the given planes, and the mean of some phantoms."""
    lines = []
    for i, (name, values) in enumerate(real.rows()):
        mean = np.mean([p.rows()[i][1] for p in phantoms], axis=0)
        lines.append(name)
        lines.append("  given    " + " ".join(f"{v:6.2f}" for v in values))
        lines.append("  phantoms " + " ".join(f"{v:6.2f}" for v in mean))
    return "\n".join(lines)


def draw_planes(path: pathlib.Path, columns: Sequence[tuple[str, Planes]]) -> None:
    """A picture: for each kind of plane a row, the given planes and the phantoms' side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(columns), 9.8))
    axes = figure.subplots(3, len(columns), squeeze=False)
    for column, (title, planes) in enumerate(columns):
        for row, kind in enumerate(_KINDS):
            named = [p for n, p in planes.items() if n.startswith(kind)]
            plane = named[len(named) // 2]
            middle = np.median(plane)
            spread = _TO_DEVIATION * np.median(np.abs(plane - middle)) or 1.0
            at = axes[row][column]
            at.imshow(plane, cmap="gray", vmin=middle - 6 * spread, vmax=middle + 4 * spread)
            at.set_axis_off()
            at.set_title(f"{title} {kind}", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
