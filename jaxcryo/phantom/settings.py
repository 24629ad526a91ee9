"""How a tomogram may look: ranges, each with its reason, and what one phantom drew from them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from jaxcryo.domain import CZII_SHAPE_ZYX, CZII_SPACING_ANGSTROM, CZII_TYPES, ParticleType, VoxelGrid, check_types
from jaxcryo.errors import InputError

Range = tuple[float, float]

_LEAST_SIZE = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImagingRanges:
    """What is drawn anew for every phantom: uniformly between two values, or in their logarithm where it says (log).

    The real center is the CZII challenge's tomograms, as measured on planes of one of them.
    """

    tilt_range_degree: Range = (42.0, 68.0)
    """Where tilts end. Stages reach 60 to 70°; planes of CZII end at 47°."""
    tilt_asymmetry_degree: Range = (-6.0, 6.0)
    """By how much the two ends differ: series lose images at one end, and specimens lie oblique."""
    tilt_fade_degree: Range = (22.0, 90.0)
    """Where a tilt's power has fallen to 1/e (log). Dose and thickness fade CZII's so; 90 is a box."""
    tilt_step_degree: Range = (1.5, 4.0)
    """Between tilts: far from the axis they do not overlap, which gives bright things their rays."""
    axis_degree: Range = (-7.0, 7.0)
    """Tilt axis from y in the plane; alignment turns it to the axis only roughly."""
    axis_any: float = 0.1
    """Share of phantoms whose axis has any direction: some programs put it along x."""
    defocus_angstrom: Range = (12000.0, 60000.0)
    """Usual for tomography without a phase plate (log)."""
    defocus_spread: Range = (0.05, 0.4)
    """Standard deviation within a tomogram, of tilts and heights, as a share of the defocus (log)."""
    uncorrected: float = 0.2
    """Share of phantoms whose phases were not flipped."""
    ctf_floor: Range = (0.15, 0.9)
    """Added in quadrature to the contrast transfer: how far a denoiser or a deconvolution filled it up."""
    snr: Range = (0.6, 6.0)
    """A body of 100 Å over the noise's deviation, both filtered (log); below a half nobody sees it."""
    resolution_angstrom: Range = (18.0, 60.0)
    """Where filters have taken the amplitude to 1/e (log): raw weighted back-projection to strong denoising."""
    sharpness: Range = (1.5, 5.0)
    """The exponent of that fall: 2 is a Gaussian."""
    sirt: Range = (-0.4, 0.9)
    """Amplitudes go with this power of 1/k: 0 as weighted back-projection, 1 as unweighted or few SIRT rounds."""
    highpass_angstrom: Range = (600.0, 6000.0)
    """Below this frequency amplitudes vanish (log): local normalization, or edges of the field."""
    noise_ramp: Range = (0.0, 1.2)
    """Noise power in a weighted back-projection grows with distance from the tilt axis, to this power."""
    noise_across: Range = (0.6, 1.0)
    """Noise's frequencies along the tilt axis count by this factor: filters of reconstructions act across the axis."""
    noise_tint: float = 0.25
    """Deviation of a smooth random factor on the noise's spectrum, in powers of ten: no two pipelines are alike."""
    noise_color_log10: tuple[float, ...] = ()
    """Added to that factor, at even steps of frequency up to a half per voxel: what a tomogram of the user's has."""
    streaks: Range = (0.03, 1.0)
    """Deviation of lines along the tilt axis against the rest of the noise (log): detector columns, uneven doses."""
    slow: Range = (0.02, 0.6)
    """Deviation of slow waves (uneven ice, gradients) against the noise (log)."""
    texture: Range = (0.0, 3.0)
    """How much grainier dense places are than ice: denoisers leave grain where they see something."""
    shrinkage: Range = (0.0, 0.7)
    """How much noise a denoiser removes in quiet places, while it leaves strong signals alone."""
    halo: Range = (0.2, 1.0)
    """Share that is left of bright rims around dark things: denoisers learn that nothing is brighter than ice."""
    denoised: float = 0.6
    """Share of phantoms that have texture, shrinkage and softened halos at all."""
    contrast: Range = (0.75, 1.3)
    """Of single particles against their mass: height in the ice, local thickness, damage."""
    border: float = 0.25
    """Share of phantoms with an empty border, wedge-shaped where a tilted volume ends."""
    bytes_share: float = 0.15
    """Share of phantoms rounded to 256 steps between outliers, as many programs export."""
    scale: Range = (1e-6, 1e2)
    """Noise deviation in the file's units (log): CZII's is 4.5e-6, others are 1 or 30."""
    offset: Range = (-3.0, 3.0)
    """Mean of the file in deviations."""


REAL_CENTER = ImagingRanges(
    tilt_range_degree=(46.0, 46.0),
    tilt_asymmetry_degree=(0.0, 0.0),
    tilt_fade_degree=(32.7, 32.7),
    tilt_step_degree=(3.0, 3.0),
    axis_degree=(0.0, 0.0),
    axis_any=0.0,
    defocus_angstrom=(17700.0, 17700.0),
    defocus_spread=(0.2, 0.2),
    uncorrected=0.0,
    ctf_floor=(0.577, 0.577),
    snr=(2.38, 2.38),
    resolution_angstrom=(29.3, 29.3),
    sharpness=(3.04, 3.04),
    sirt=(0.667, 0.667),
    highpass_angstrom=(612.0, 612.0),
    noise_ramp=(0.717, 0.717),
    noise_across=(0.8, 0.8),
    noise_tint=0.0,
    streaks=(0.01, 0.01),
    slow=(0.069, 0.069),
    texture=(2.4, 2.4),
    shrinkage=(0.468, 0.468),
    halo=(0.744, 0.744),
    denoised=1.0,
    border=0.0,
    bytes_share=0.0,
    scale=(4.5e-6, 4.5e-6),
    offset=(0.0, 0.0),
)
"""Settings whose planes match the figures of real ones from the CZII challenge (`jaxcryo phantom compare`)."""

_LOGARITHMIC = {
    "tilt_fade_degree",
    "defocus_angstrom",
    "defocus_spread",
    "snr",
    "resolution_angstrom",
    "highpass_angstrom",
    "streaks",
    "slow",
    "scale",
}
_TINT_KNOTS = 7


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawnImaging:
    """What one phantom drew; fields are those of `ImagingRanges`."""

    tilt_range_degree: float
    tilt_asymmetry_degree: float
    tilt_fade_degree: float
    tilt_step_degree: float
    axis_degree: float
    defocus_angstrom: float
    defocus_spread: float
    phases_flipped: bool
    ctf_floor: float
    snr: float
    resolution_angstrom: float
    sharpness: float
    sirt: float
    highpass_angstrom: float
    noise_ramp: float
    noise_across: float
    noise_tint_log10: tuple[float, ...]
    """At even steps of frequency from 0 to a half per voxel."""
    streaks: float
    slow: float
    texture: float
    shrinkage: float
    halo: float
    contrast: Range
    border: str
    """'' for none, or what fills it: 'zero', 'mean', 'grey'."""
    as_bytes: bool
    scale: float
    offset: float


def draw_imaging(
    ranges: ImagingRanges, rng: np.random.Generator, harshness: float, center_share: float
) -> DrawnImaging:
    """One phantom's imaging. A share `center_share` of phantoms are drawn close to the real center.

    Harshness above 1 lowers the signal-to-noise ratio and makes particles harder to see in other ways; below 1 it does
    the reverse.
    """
    drawn = {}
    near = rng.uniform() < center_share
    for field in dataclasses.fields(ImagingRanges):
        low_high = getattr(ranges, field.name)
        if not isinstance(low_high, tuple) or field.name in ("contrast", "noise_color_log10"):
            continue
        center = getattr(REAL_CENTER, field.name)[0]
        drawn[field.name] = _draw(rng, low_high, field.name in _LOGARITHMIC, center if near else None)
    share = {
        n: bool(rng.uniform() < getattr(ranges, n)) for n in ("axis_any", "uncorrected", "denoised", "bytes_share")
    }
    tint = rng.normal(size=_TINT_KNOTS) * ranges.noise_tint * (0.4 if near else 1.0)
    if ranges.noise_color_log10:
        even = np.linspace(0, 1, _TINT_KNOTS), np.linspace(0, 1, len(ranges.noise_color_log10))
        tint = tint + np.interp(*even, ranges.noise_color_log10)
    if share.pop("axis_any"):
        drawn["axis_degree"] = float(rng.uniform(-90, 90))
    if not (share["denoised"] or near):
        drawn["texture"], drawn["shrinkage"], drawn["halo"] = 0.0, 0.0, 1.0
    drawn["snr"] /= harshness
    border = str(rng.choice(["zero", "mean", "grey"])) if rng.uniform() < ranges.border else ""
    return DrawnImaging(
        phases_flipped=near or not share["uncorrected"],
        noise_tint_log10=tuple(float(v) for v in tint),
        contrast=ranges.contrast,
        border=border,
        as_bytes=share["bytes_share"],
        **drawn,
    )


def _draw(rng: np.random.Generator, low_high: Range, logarithmic: bool, center: float | None) -> float:
    low, high = (math.log(v) for v in low_high) if logarithmic else low_high
    value = float(rng.uniform(low, high))
    if center is not None:
        middle = math.log(center) if logarithmic else center
        # A fifth of the range around the center, never beyond the range itself unless the center is.
        value = middle + 0.2 * (value - middle)
    return math.exp(value) if logarithmic else value


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContentRanges:
    """What is in a phantom besides its types, per volume of the challenge's tomograms (184 × 630 × 630 of 10 Å)."""

    abundance: Range = (0.5, 6.0)
    """Of labelled particles against the challenge's 180 a tomogram (log): much to learn from in little volume."""
    absent: float = 0.12
    """Chance of a type to be missing from a phantom: no picker may expect all of them."""
    clustering: Range = (0.0, 0.8)
    """Chance of a particle to touch one of its own type; apo-ferritin's neighbors are 130 Å apart in the median."""
    clearance: Range = (0.8, 1.1)
    """Least distance of two particles against the sum of their radii; real picks come closer than touching."""
    fragments: Range = (500.0, 9000.0)
    """Pieces and small proteins, 10 to 300 kDa (log)."""
    company: Range = (30.0, 600.0)
    """Whole assemblies that are none of the types (log)."""
    aggregates: Range = (10.0, 400.0)
    """Clumps of pieces, far darker than noise (log)."""
    vesicles: Range = (0.5, 25.0)
    filaments: Range = (0.2, 20.0)
    gold: float = 0.15
    """Share of phantoms with gold beads."""
    carbon: float = 0.12
    """Share with the edge of a carbon film."""
    thickness_angstrom: Range = (700.0, 2500.0)
    """Of the ice; beyond it there is nothing."""
    oblique_degree: Range = (-8.0, 8.0)
    """Of the ice against the volume."""


REAL_CONTENTS = ContentRanges(
    abundance=(0.7, 1.4),
    absent=0.0,
    clustering=(0.35, 0.45),
    clearance=(0.85, 1.0),
    fragments=(6000.0, 9000.0),
    company=(120.0, 300.0),
    aggregates=(100.0, 200.0),
    vesicles=(1.0, 8.0),
    filaments=(1.0, 6.0),
    gold=0.0,
    carbon=0.1,
    thickness_angstrom=(1000.0, 2000.0),
    oblique_degree=(-4.0, 4.0),
)
"""What the challenge's tomograms hold."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawConfig:
    """Settings that phantoms share; everything else is drawn from a phantom's seed."""

    types: tuple[ParticleType, ...] = CZII_TYPES
    structures: tuple[str, ...] = ()
    """For each type a file or a packaged structure; '' takes the built-in one by the type's name, or a globule."""
    shape_zyx: tuple[int, int, int] = CZII_SHAPE_ZYX
    spacing_angstrom: float = CZII_SPACING_ANGSTROM
    imaging: ImagingRanges = dataclasses.field(default_factory=ImagingRanges)
    contents: ContentRanges = dataclasses.field(default_factory=ContentRanges)
    center_share: float = 0.35
    """Share of phantoms that are drawn close to the real center."""
    harshness: float = 1.0
    """Divides signal to noise; held-out phantoms use more than 1."""
    backgrounds: tuple[str, ...] = ()
    """Tomograms that most phantoms' particles are put into, in place of noise and company."""
    family: str = "house"
    """'house', or 'stranger': another way of imaging and other company, never for training."""

    def __post_init__(self) -> None:
        if not self.types:
            raise InputError("no particle types are given; expected at least one")
        check_types(self.types)
        if self.structures and len(self.structures) != len(self.types):
            raise InputError(
                f"{len(self.structures)} structures for {len(self.types)} particle types; expected one each"
            )
        if len(self.shape_zyx) != 3 or min(self.shape_zyx) < _LEAST_SIZE:
            raise InputError(f"the shape is {self.shape_zyx}; expected three sizes (z, y, x) of {_LEAST_SIZE} or more")
        if not (math.isfinite(self.spacing_angstrom) and self.spacing_angstrom > 0):
            raise InputError(f"the voxel spacing is {self.spacing_angstrom} Å; it must be above 0")
        if not (math.isfinite(self.harshness) and self.harshness > 0):
            raise InputError(f"the harshness is {self.harshness}; expected a number above 0")
        if self.family not in ("house", "stranger"):
            raise InputError(f"the family is {self.family!r}; expected 'house' or 'stranger'")

    @classmethod
    def real(cls, **fields: Any) -> DrawConfig:
        """Phantoms that are all close to the challenge's tomograms, with as many particles."""
        return cls(contents=REAL_CONTENTS, center_share=1.0, **fields)

    def grid(self, shape_zyx: tuple[int, int, int] | None = None) -> VoxelGrid:
        """The voxels of a phantom, of the configured shape if none is given."""
        return VoxelGrid(shape_zyx=shape_zyx or self.shape_zyx, spacing_zyx_angstrom=(self.spacing_angstrom,) * 3)


_NO_NOISE = 1e-3


def config_for(imaging: str, difficulty: float, **fields: Any) -> DrawConfig:
    """The configuration of a dataset: `imaging` is 'real', 'varied' or 'stranger', difficulty divides signal to noise.

    Difficulty 0 has no noise to speak of, and nothing that is not labelled.

    Raises:
        InputError: there is no such imaging, or the difficulty is not a number from 0 upwards.
    """
    if not (math.isfinite(difficulty) and difficulty >= 0):
        raise InputError(f"the difficulty is {difficulty}; expected a number from 0 (no noise) upwards")
    if imaging not in ("real", "varied", "stranger"):
        raise InputError(f"the imaging is {imaging!r}; expected real, varied or stranger")
    fields = {**fields, "harshness": max(difficulty, _NO_NOISE)}
    config = DrawConfig.real(**fields) if imaging == "real" else DrawConfig(**fields)
    if imaging == "stranger":
        config = dataclasses.replace(config, family="stranger")
    if difficulty > 0:
        return config
    return dataclasses.replace(config, contents=particles_alone(config.contents))


def particles_alone(contents: ContentRanges) -> ContentRanges:
    """The same labelled particles, with nothing else."""
    none = (_NO_NOISE, _NO_NOISE)
    return dataclasses.replace(
        contents,
        fragments=none,
        company=none,
        aggregates=none,
        vesicles=none,
        filaments=none,
        gold=0.0,
        carbon=0.0,
    )
