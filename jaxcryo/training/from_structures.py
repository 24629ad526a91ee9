"""Trainings without tomograms or picks: on phantoms of the particles' structures, made while they run.

Samples come from phantoms as `DrawConfig` draws them; held-out phantoms have other seeds and more or less signal. At
the end, scores are calibrated on all held-out phantoms.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np

from jaxcryo.config import AugmentConfig, IntensityConfig, TrainConfig
from jaxcryo.domain import Picks, Volume
from jaxcryo.models import build
from jaxcryo.phantom import DrawConfig, draw_phantom
from jaxcryo.picking.stitch import OnWindows
from jaxcryo.tomogram.normalization import normalization
from jaxcryo.tomogram.statistics import surveyed
from jaxcryo.training.live_phantoms import LiveConfig, PhantomSource, Sketch
from jaxcryo.training.source import Example
from jaxcryo.training.validation import calibrate_on, flax_model
from jaxcryo.weights import TrainedModel

EPOCH_STEPS = 1000
"""A training on phantoms has no epochs; this many steps count as one, for its length and its validations."""
HARSHNESS = (0.7, 2.0)
"""The signal of held-out phantoms is divided by a number in this range, from easier than in training to much harder.
For the first, on which trainings are validated, it is 1.3."""
_FIRST, _GOLDEN = 0.59, 0.618
"""Where in that range the first one lies, and the step to the next: any number of them covers the range evenly."""
HELD_OUT_SHAPE_ZYX = (96, 224, 224)
CALIBRATING = 24
"""Held-out phantoms that scores are calibrated on; with eight of one difficulty, thresholds were too low elsewhere."""
_TRAINING_SEEDS, _HELD_OUT_SEEDS = 0, 1


def for_structures(config: TrainConfig) -> TrainConfig:
    """A recipe for phantoms that are all different.

    Tomograms are normalized robustly, since they may come from anywhere. Orientations, positions, noise and contrast
    are drawn anew for every phantom, so windows are not warped in the plane, which would only blur them.
    """
    return dataclasses.replace(
        config,
        intensity=IntensityConfig.robust(),
        augment=AugmentConfig(
            warp_probability=0.0, flip_x_probability=0.0, intensity_probability=0.3, mixup_probability=0.0
        ),
        optim=dataclasses.replace(config.optim, ema_decay=0.998, warmup_epochs=0.2),
        pretrained=False,
    )


def phantom_source(draw: DrawConfig, config: TrainConfig, live: LiveConfig | None = None) -> PhantomSource:
    """A source of batches for `fit`; each phantom is made from its number and the recipe's seed."""
    live = live or LiveConfig.holding(config.model.patch_zyx)
    make = functools.partial(_sketch, draw, config.intensity, config.seed, live.shape_zyx)
    names = ", ".join(t.name for t in draw.types)
    about = (
        f"phantoms of {names}, made while training ({live.at_hand} at hand, a new one every {live.steps_each} steps)"
    )
    return PhantomSource(make, config, live, epoch_steps=EPOCH_STEPS, about=about)


def held_out_phantoms(draw: DrawConfig, seed: int, count: int) -> Iterator[Example]:
    """Phantoms that no training sees, one after another; every fourth has settings close to real tomograms'."""
    grid = draw.grid(HELD_OUT_SHAPE_ZYX)
    low, high = HARSHNESS
    for number in range(count):
        harshness = draw.harshness * low * (high / low) ** ((_FIRST + number * _GOLDEN) % 1)
        center = 1.0 if number % 4 == 3 else draw.center_share
        own = dataclasses.replace(draw, harshness=harshness, center_share=center)
        if number == 0:  # trainings are validated on it: particles of every type, and many
            most = (draw.contents.abundance[1],) * 2
            own = dataclasses.replace(own, contents=dataclasses.replace(own.contents, absent=0.0, abundance=most))
        phantom = draw_phantom(own, (seed, _HELD_OUT_SEEDS, number), HELD_OUT_SHAPE_ZYX)
        name = f"held-out phantom {number}"
        picks = Picks(
            run=name,
            types=draw.types,
            xyz_angstrom=grid.to_angstrom(phantom.centers_zyx_voxel),
            type_index=phantom.type_index,
        )
        yield Example(volume=Volume(name=name, voxels=phantom.voxels, grid=grid), picks=picks)


def calibrated(
    model: TrainedModel, examples: Sequence[Example], *, on_windows: OnWindows | None = None
) -> TrainedModel:
    """The model with thresholds and a calibration from these tomograms."""
    network, _, _ = build(model.config.model, seed=None)
    opened = flax_model(network, model.params, model.stats, model.config, name=model.source)
    held_out = [(e.volume, e.picks) for e in examples]
    types, calibration = calibrate_on(opened, held_out, model.types, model.config, on_windows=on_windows)
    return dataclasses.replace(model, types=types, calibration=calibration)


def _sketch(
    draw: DrawConfig, intensity: IntensityConfig, seed: int, shape_zyx: tuple[int, int, int], number: int
) -> Sketch:
    phantom = draw_phantom(draw, (seed, _TRAINING_SEEDS, number), shape_zyx)
    volume = surveyed(Volume(name=f"phantom {number}", voxels=phantom.voxels, grid=draw.grid(shape_zyx)))
    voxels = normalization(volume, intensity)(volume.read(0, shape_zyx[0]))
    return Sketch(
        voxels=voxels.astype(np.float16),
        centers_zyx_voxel=phantom.centers_zyx_voxel.astype(np.float32),
        type_index=phantom.type_index.astype(np.int32),
    )
