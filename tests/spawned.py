"""What tests have done in processes of their own: those find this folder on their path, and no test module."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxcryo.training.live_phantoms import Sketch

SHAPE = (24, 80, 80)


def marked(number: int) -> Sketch:
    """A phantom whose voxels are its number, with one particle whose type is its number."""
    return Sketch(
        voxels=np.full(SHAPE, number, np.float16),
        centers_zyx_voxel=np.array([[12.0, 40.0, 40.0]], np.float32),
        type_index=np.array([number % 6], np.int32),
    )


def crowded(number: int) -> Sketch:
    """A phantom with nine particles at one place."""
    sketch = marked(number)
    return dataclasses.replace(
        sketch, centers_zyx_voxel=np.repeat(sketch.centers_zyx_voxel, 9, 0), type_index=np.zeros(9, np.int32)
    )
