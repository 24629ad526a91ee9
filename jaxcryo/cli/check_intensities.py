"""What a training should know of its tomograms' intensities before it starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from jaxcryo.config import IntensityConfig, TrainConfig
from jaxcryo.domain import Volume
from jaxcryo.picking.preprocess import on_scale
from jaxcryo.tomogram.padding import padding_needed
from jaxcryo.tomogram.statistics import Surveyed, of_opposite_contrast, surveyed


def suited(
    config: TrainConfig, volumes: Sequence[Volume], note: Callable[[str], object]
) -> tuple[TrainConfig, list[Surveyed], float]:
    """The config with an intensity rule that suits the tomograms, those with their empty regions, and their skewness.

    Constants that are far from the tomograms' scale give way to each tomogram's own mean and deviation. A tomogram
    whose contrast looks opposite to the others' is said.

    Raises:
        InputError: a tomogram cannot be read, or its voxels are all equal.
    """
    gone_through = [surveyed(v, note=note) for v in volumes]
    for volume in gone_through:
        if sentence := padding_needed(volume.name, volume.grid.shape_zyx, config.model.patch_zyx):
            note(sentence)
    measured = {v.name: v.statistics for v in gone_through}
    odd = of_opposite_contrast({name: m.skewness for name, m in measured.items()})
    if odd:
        note(
            f"the contrast of {', '.join(odd)} looks opposite to the others': leave it out, or write it with its sign "
            "changed (--invert changes all)"
        )
    off = [name for name, m in measured.items() if not on_scale(m, config.intensity)]
    if config.intensity.rule == "fixed" and off:
        note(
            f"the intensities of {', '.join(off)} are not on the recipe's scale: every tomogram is normalised by its "
            "own mean and standard deviation"
        )
        config = dataclasses.replace(config, intensity=IntensityConfig(rule="tomogram"))
    return config, gone_through, round(float(np.median([m.skewness for m in measured.values()])), 3)
