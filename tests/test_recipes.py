"""The recipes, and their numbers changed by name."""

from __future__ import annotations

import dataclasses

import pytest

from jaxcryo.errors import InputError
from jaxcryo.models import architectures
from jaxcryo.recipes import recipe, with_values


@pytest.mark.parametrize(("arch", "size"), [(name, size) for name, a in architectures().items() for size in a.recipes])
def test_nothing_changed_is_the_recipe(arch, size) -> None:
    assert with_values(recipe(arch, size), []) == recipe(arch, size)


def test_numbers_by_name() -> None:
    before = recipe("yu4u", "tiny")
    names = ["optim.ema_decay=0.99", "crop.near_pick=0.3", "optim.clip_norm=null", "inference.stride_zyx=[4,32,32]"]
    after = with_values(before, [*names, "inference.padding=zeros", "model.encoder.kernel=5", "seed=7"])
    assert after == dataclasses.replace(
        before,
        optim=dataclasses.replace(before.optim, ema_decay=0.99, clip_norm=None),
        crop=dataclasses.replace(before.crop, near_pick=0.3),
        inference=dataclasses.replace(before.inference, stride_zyx=(4, 32, 32), padding="zeros"),
        model=dataclasses.replace(before.model, encoder=dataclasses.replace(before.model.encoder, kernel=5)),
        seed=7,
    )


@pytest.mark.parametrize(
    ("assignment", "facts"),
    [
        ("optim.ema_decy=0.99", ("optim.ema_decy", "optim.ema_decay")),
        ("near_pick=1", ("near_pick", "crop.near_pick")),
        ("zzz=1", ("zzz", "augment.brightness")),
        ("optim=1", ("optim", "nearest")),
        ("arch=tattaka", ("arch",)),
        ("model.classes=3", ("model.classes",)),
        ("optim.ema_decay", ("NAME=VALUE",)),
        ("optim.ema_decay=high", ("optim.ema_decay", "'high'", "number")),
        ("optim.batch=1.5", ("optim.batch", "1.5", "whole number")),
        ("optim.batch=0", ("batch", "0", "above 0")),
        ("optim.ema_decay=1.5", ("ema_decay", "1.5")),
        ("augment.mixup_probability=-0.1", ("mixup_probability", "-0.1")),
        ("optim.learning_rate=NaN", ("learning_rate", "nan")),
        ("inference.padding=wrap", ("inference.padding", "wrap")),
        ("inference.stride_zyx=[1,2]", ("inference.stride_zyx",)),
    ],
)
def test_what_cannot_be_set(assignment: str, facts: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as raised:
        with_values(recipe("yu4u", "tiny"), [assignment])
    assert all(fact in str(raised.value) for fact in facts), raised.value
