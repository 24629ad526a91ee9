"""Less effort is fewer windows, never more than the recipe asks for, and never gaps."""

from __future__ import annotations

import pytest

from jaxcryo.models import architectures
from jaxcryo.picking.effort import EFFORTS, stride_of
from jaxcryo.picking.windows import plan_windows
from jaxcryo.recipes import recipe


@pytest.mark.parametrize(("arch", "size"), [(name, size) for name, a in architectures().items() for size in a.recipes])
def test_full_is_the_recipe_and_the_others_are_fewer_windows(arch, size) -> None:
    config = recipe(arch, size)
    patch, own = config.model.patch_zyx, config.inference.stride_zyx
    strides = [stride_of(effort, patch, own) for effort in EFFORTS]
    assert strides[0] == own
    counts = [plan_windows((184, 630, 630), patch, stride).count for stride in strides]
    assert counts[0] >= counts[1] > counts[2]
    assert all(s <= p for stride in strides for s, p in zip(stride, patch, strict=True))


@pytest.mark.parametrize("arch", tuple(architectures()))
def test_the_paper_s_windows(arch) -> None:
    config = recipe(arch)
    plan = plan_windows((184, 630, 630), config.model.patch_zyx, config.inference.stride_zyx)
    assert (len(plan.y.starts), len(plan.x.starts)) == (12, 12)
    assert len(plan.z.starts) == {"yu4u": 22, "tattaka": 11}[arch]
