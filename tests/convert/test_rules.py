"""Rules read in both directions; the first convolution is adapted by timm's rule."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcryo.models import architectures
from jaxcryo.models.naming import (
    Rule,
    adapt_first_conv,
    match_source,
    match_target,
    our_shape,
    their_shape,
    to_ours,
    to_theirs,
)


def test_a_template_reads_numbers_and_shifts_them() -> None:
    rules = (Rule(source="layer{stage+1}.{block}.w", target="stages.{stage}.blocks.{block}.kernel"),)
    match = match_source(rules, "layer3.12.w")
    assert match is not None and match.target == "stages.2.blocks.12.kernel"
    back = match_target(rules, "stages.2.blocks.12.kernel")
    assert back is not None and back.source == "layer3.12.w"
    for name in ("layer0.1.w", "layer3.x.w", "layer3.1.wx", "layer3.01.w", "xlayer3.1.w"):
        assert match_source(rules, name) is None


@pytest.mark.parametrize("layout", ["same", "conv2d", "conv3d"])
def test_layouts_invert(layout: str) -> None:
    rule = Rule(source="a", target="b", layout=layout)
    shape = {"same": (5,), "conv2d": (2, 3, 4, 5), "conv3d": (2, 3, 4, 5, 6)}[layout]
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    ours = to_ours(values, rule)
    assert ours.shape == our_shape(shape, rule) and their_shape(ours.shape, rule) == shape
    np.testing.assert_array_equal(to_theirs(ours, rule), values)


def test_too_few_axes_have_no_shape() -> None:
    assert our_shape((3, 4), Rule(source="a", target="b", layout="conv2d")) is None


def test_first_convolution_by_timms_rule() -> None:
    rgb = np.random.default_rng(0).standard_normal((4, 3, 2, 2)).astype(np.float32)
    np.testing.assert_allclose(adapt_first_conv(rgb, 1)[:, 0], rgb.sum(1), rtol=1e-6)
    five = adapt_first_conv(rgb, 5)
    np.testing.assert_allclose(five, rgb[:, [0, 1, 2, 0, 1]] * 0.6, rtol=1e-6)
    for same in (rgb[:, :1], five):
        assert adapt_first_conv(same, 5) is same
    assert adapt_first_conv(rgb, 3) is rgb


@pytest.mark.parametrize("kind", [s for a in architectures().values() for s in a.sources], ids=lambda k: k.title)
def test_every_rule_has_a_target_or_a_reason(kind: object) -> None:
    for rule in kind.rules:
        assert (rule.target is None) == bool(rule.reason)
