"""A small world to train in."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxcryo.config import TrainConfig
from jaxcryo.domain import CZII_TYPES
from jaxcryo.phantom import PhantomConfig, make_phantom
from jaxcryo.recipes import recipe
from jaxcryo.training.run_folder import RunDescription
from jaxcryo.training.source import Example

TYPES = CZII_TYPES[:3]


@pytest.fixture(scope="session")
def description(config: TrainConfig, examples: list[Example]) -> RunDescription:
    """Four steps on the second phantom, the first one held out."""
    return RunDescription(
        config=config,
        types=examples[0].picks.types,
        fold=0,
        train_runs=("PH_001",),
        held_out="PH_000",
        spacing_angstrom=10.0,
        steps=4,
    )


@pytest.fixture(scope="session")
def config() -> TrainConfig:
    """The tiny yu4u recipe with a batch of four, with the paper's layer scale and epsilon.

    Below it Adam makes whole steps of gradients that are 0 but for rounding, on which no two ways to add agree.
    """
    plain = recipe("yu4u", "tiny", classes=len(TYPES))
    return dataclasses.replace(
        plain,
        model=dataclasses.replace(
            plain.model,
            patch_zyx=(16, 32, 32),
            encoder=dataclasses.replace(plain.model.encoder, layer_scale=recipe("yu4u").model.encoder.layer_scale),
        ),
        inference=dataclasses.replace(plain.inference, stride_zyx=(16, 32, 32)),
        augment=dataclasses.replace(plain.augment, mixup_probability=0.5),
        optim=dataclasses.replace(plain.optim, epsilon=recipe("yu4u").optim.epsilon),
    )


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    """Two phantoms just larger than a window."""
    made = [
        make_phantom(PhantomConfig(shape_zyx=(24, 48, 64), types=TYPES), seed=s, name=f"PH_{s:03d}") for s in range(2)
    ]
    return [Example(volume=v, picks=p) for v, p in made]


def equal(a: object, b: object) -> bool:
    """Whether two trees of arrays are bit-identical."""
    leaves_a, leaves_b = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(leaves_a) == len(leaves_b) and all(np.array_equal(x, y) for x, y in zip(leaves_a, leaves_b, strict=True))
