"""Preparing a tomogram for the models: its voxel spacing, its intensities, and a note on its contrast."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxcryo.config import IntensityConfig
from jaxcryo.domain import Volume
from jaxcryo.errors import InputError
from jaxcryo.runtime.manifest import ModelEntry
from jaxcryo.tomogram.normalization import scaled
from jaxcryo.tomogram.padding import padding_needed
from jaxcryo.tomogram.resample import resampled
from jaxcryo.tomogram.statistics import Note, Statistics, Surveyed, are_opposite, surveyed

SPACING_TOLERANCE = 0.02
"""Voxel spacings that differ from the training's by up to this share are not resampled."""
_SCALE_TOLERANCE = 3.0


def fit_volume(
    volume: Volume,
    entries: Sequence[ModelEntry],
    *,
    survey: Callable[..., Surveyed] = surveyed,
    note: Note = lambda sentence: None,
) -> Volume:
    """The volume as the models need it, computed as it is read; positions are those of the given volume.

    A volume of another voxel spacing is resampled. If the models normalize by constants that are far from its
    intensities, it is brought to their scale. `note` is told of each change, and of a contrast that looks opposite,
    which is not changed.

    `survey` measures the given volume, and then the prepared one if the models use its statistics.

    Raises:
        InputError: the models' spacings differ, the volume's cannot be right, or it cannot be read.
    """
    spacing = models_spacing(entries)
    given = survey(volume, note=note)
    measured = given.statistics
    known = [e.skewness for e in entries if e.skewness is not None]
    if known and are_opposite(measured.skewness, known[0]):
        dark, bright = ("bright", "dark") if measured.skewness > 0 else ("dark", "bright")
        note(
            f"{volume.name}: {dark} things stand out in it, {bright} ones did in training (skewness "
            f"{measured.skewness:+.1f} and {known[0]:+.1f}): its contrast looks opposite: use --invert, or leave it "
            "out (in Python invert=True)"
        )
    fixed = next((e.intensity for e in entries if e.intensity.rule == "fixed"), None)
    volume = at_scale(given, fixed, note=note)
    own = volume.grid.spacing_zyx_angstrom
    if any(abs(s / spacing - 1) > SPACING_TOLERANCE for s in own):
        before = f"{volume.grid.spacing_angstrom:.3f}" if len(set(own)) == 1 else " × ".join(f"{s:.3f}" for s in own)
        volume = resampled(volume, spacing)
        note(
            f"{volume.name}: resampled from {before} to the models' {spacing:.3f} Å, picks stay in its own "
            "coordinates (if the file's spacing is wrong, pass the true one with --voxel-spacing)"
        )
    for sentence in sorted({padding_needed(volume.name, volume.grid.shape_zyx, e.patch_zyx) or "" for e in entries}):
        if sentence:
            note(sentence)
    by_figures = any(e.intensity.rule != "fixed" for e in entries)
    return survey(volume) if by_figures and not isinstance(volume, Surveyed) else volume


def at_scale(volume: Surveyed, intensity: IntensityConfig | None, *, note: Note = lambda sentence: None) -> Volume:
    """The volume, brought to the scale of the rule's constants where it is far from them, which is said."""
    measured = volume.statistics
    if intensity is None or intensity.rule != "fixed" or on_scale(measured, intensity):
        return volume
    note(
        f"{volume.name}: its intensities ({measured.mean:.3g} ± {measured.std:.3g}) are not on the training's "
        f"scale ({intensity.mean:.3g} ± {intensity.std:.3g}): brought to it"
    )
    gain = intensity.std / measured.std
    return scaled(volume, gain=gain, offset=intensity.mean - measured.mean * gain)


def models_spacing(entries: Sequence[ModelEntry]) -> float:
    """The voxel spacing that all models were trained on.

    Raises:
        InputError: they differ.
    """
    first = entries[0]
    for entry in entries[1:]:
        if abs(entry.spacing_angstrom / first.spacing_angstrom - 1) > SPACING_TOLERANCE:
            raise InputError(
                f"{first.name} was trained on voxels of {first.spacing_angstrom:g} Å, {entry.name} on "
                f"{entry.spacing_angstrom:g} Å; averaged models need the same: convert them to different "
                "folders"
            )
    return first.spacing_angstrom


def on_scale(measured: Statistics, config: IntensityConfig) -> bool:
    """Whether normalizing by the config's constants gives values in the range that the network was trained on."""
    return (
        1 / _SCALE_TOLERANCE <= measured.std / config.std <= _SCALE_TOLERANCE
        and abs(measured.mean - config.mean) <= _SCALE_TOLERANCE * config.std
    )
