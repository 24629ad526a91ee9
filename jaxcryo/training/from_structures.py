"""Trainings that need no tomogram and no pick: phantoms of the particles' structures, made while they run.

Samples come from phantoms as `DrawConfig` draws them, the held-out ones from other seeds and with more or less signal.
What the score of a candidate means is found on all of these at the end.
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
"""A training on phantoms has no epochs of its own; validations and lengths are counted by this many steps."""
HARSHNESS = (0.7, 2.0)
"""Of held-out phantoms: their signal divided by this much, from easier than those in training to much harder. The
first, on which trainings are validated, has 1.3."""
_FIRST, _GOLDEN = 0.59, 0.618
"""Where in that range the first one lies, and how far the next one is from it: any number of them covers it evenly."""
HELD_OUT_SHAPE_ZYX = (96, 224, 224)
CALIBRATING = 24
"""Held-out phantoms that scores are calibrated on; on eight of one harshness, thresholds come out too low elsewhere."""
_TRAINING_SEEDS, _HELD_OUT_SEEDS = 0, 1


def for_structures(config: TrainConfig) -> TrainConfig:
    """A recipe for phantoms that are all different.

    Tomograms are normalized robustly, since they will come from anywhere. Orientations, positions, noise and contrast
    are drawn anew for every phantom, so windows are not changed in the plane, which would only blur them.
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
    """Phantoms that no training sees, one after the other; every fourth is close to the real center."""
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
    """The model with thresholds and a calibration that these tomograms give."""
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
