"""How foreign tensor names and layouts correspond to ours: ordered rules that work in both directions.

A rule's names are templates: `{stage}` stands for a whole number, `{stage+1}` for that number plus one, everything
else for itself. The first rule that matches a name decides, in either direction.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from jaxcryo.config import NetworkConfig

Layout = Literal["same", "conv2d", "conv3d"]
_AXES: dict[Layout, tuple[int, ...] | None] = {"same": None, "conv2d": (2, 3, 1, 0), "conv3d": (2, 3, 4, 1, 0)}
_PLACEHOLDER = re.compile(r"\{(\w+)(?:\+(\d+))?\}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """One foreign name becomes one name of ours, or is ignored for a reason.

    `conv2d` and `conv3d` move (outputs, inputs, *kernel) to (*kernel, inputs, outputs), which also fits depthwise
    kernels; `first_conv` marks the kernel whose inputs are adapted to the image's channels.
    """

    source: str
    target: str | None = None
    layout: Layout = "same"
    first_conv: bool = False
    reason: str = ""

    def prefixed(self, *, source: str, target: str) -> Self:
        """The same rule for names with a prefix on either side."""
        return dataclasses.replace(
            self, source=source + self.source, target=None if self.target is None else target + self.target
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Match:
    """A foreign name, the rule for it, and our name (None: ignored)."""

    source: str
    target: str | None
    rule: Rule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A network with the tensor names of another program; an architecture lists those that can be ported to it."""

    title: str
    rules: tuple[Rule, ...]
    form: str | None = None
    """Its name for `convert export --to`; None if it is only read."""
    head: str | None = None
    """The tensor whose first axis is the classes; None if the source is only an encoder."""
    channels_per_class: Callable[[NetworkConfig], int] = lambda config: 1
    """The number of the head's outputs per class."""
    fixed: Mapping[str, Callable[[NetworkConfig], NDArray[Any]]] = dataclasses.field(default_factory=dict)
    """Tensors that must have these values, or the rules do not apply."""
    of_the_challenge: bool = False
    """Whether a whole model with as many classes as the CZII challenge was trained on its tomograms."""


def match_source(rules: Sequence[Rule], name: str) -> Match | None:
    """The match of the first rule for a foreign name."""
    for rule in rules:
        numbers = _parse(rule.source, name)
        if numbers is not None:
            return Match(source=name, target=rule.target and _fill(rule.target, numbers), rule=rule)
    return None


def match_target(rules: Sequence[Rule], name: str) -> Match | None:
    """The foreign name for one of ours, by the first rule that leads to it."""
    for rule in rules:
        numbers = None if rule.target is None else _parse(rule.target, name)
        if numbers is not None:
            return Match(source=_fill(rule.source, numbers), target=name, rule=rule)
    return None


def conv(source: str, target: str, layout: Layout, *, bias: bool = False, first: bool = False) -> Iterator[Rule]:
    """PyTorch's `weight` and `bias` to our `kernel` and `bias`."""
    yield Rule(source=f"{source}.weight", target=f"{target}.kernel", layout=layout, first_conv=first)
    if bias:
        yield Rule(source=f"{source}.bias", target=f"{target}.bias")


def layer_norm(source: str, target: str) -> Iterator[Rule]:
    """PyTorch's LayerNorm to ours."""
    yield Rule(source=f"{source}.weight", target=f"{target}.scale")
    yield Rule(source=f"{source}.bias", target=f"{target}.bias")


def batch_norm(source: str, target: str) -> Iterator[Rule]:
    """PyTorch's BatchNorm to ours, its running statistics included."""
    yield from layer_norm(source, target)
    yield Rule(source=f"{source}.running_mean", target=f"{target}.mean")
    yield Rule(source=f"{source}.running_var", target=f"{target}.var")
    yield Rule(
        source=f"{source}.num_batches_tracked", reason="a counter that BatchNorm with a fixed momentum never reads"
    )


def to_ours(values: NDArray[np.generic], rule: Rule, channels: int | None = None) -> NDArray[np.float32]:
    """A foreign tensor as our float32 array; `channels` are the image's, for the rule of the first convolution."""
    array = np.asarray(values).astype(np.float32, copy=False)
    if rule.first_conv and channels is not None:
        array = adapt_first_conv(array, channels)
    axes = _AXES[rule.layout]
    return np.ascontiguousarray(array if axes is None else array.transpose(axes))


def to_theirs(values: NDArray[np.float32], rule: Rule) -> NDArray[np.float32]:
    """The inverse of `to_ours`."""
    axes = _AXES[rule.layout]
    return np.ascontiguousarray(values if axes is None else values.transpose(np.argsort(axes)))


def our_shape(shape: tuple[int, ...], rule: Rule, channels: int | None = None) -> tuple[int, ...] | None:
    """The shape that `to_ours` returns, or None if the tensor has too many or too few axes for the rule's layout."""
    axes = _AXES[rule.layout]
    if axes is not None and len(shape) != len(axes):
        return None
    if rule.first_conv and channels is not None and shape[1] == 3:
        shape = (shape[0], channels, *shape[2:])
    return shape if axes is None else tuple(shape[a] for a in axes)


def their_shape(shape: tuple[int, ...], rule: Rule) -> tuple[int, ...]:
    """The foreign shape of an array of ours."""
    axes = _AXES[rule.layout]
    return shape if axes is None else tuple(shape[axes.index(a)] for a in range(len(axes)))


def adapt_first_conv(kernel: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """An RGB kernel (outputs, 3, h, w) for images of `channels` channels, by timm's rule.

    One channel: the sum over RGB. More: RGB repeated cyclically and scaled by 3 / channels, so that equal channels
    give the same result. A kernel that is not RGB stays as it is.
    """
    if kernel.shape[1] != 3 or channels == 3:
        return kernel
    if channels == 1:
        summed: NDArray[np.float32] = kernel.sum(axis=1, keepdims=True)
        return summed
    return kernel[:, np.arange(channels) % 3] * np.float32(3 / channels)


def with_prefix(rules: Iterable[Rule], *, source: str = "", target: str = "") -> tuple[Rule, ...]:
    """All rules with a prefix on either side."""
    return tuple(r.prefixed(source=source, target=target) for r in rules)


def _parse(template: str, name: str) -> dict[str, int] | None:
    expression, shifts = _compile(template)
    found = expression.fullmatch(name)
    if found is None:
        return None
    numbers = {key: int(value) - shifts[key] for key, value in found.groupdict().items()}
    return numbers if all(n >= 0 for n in numbers.values()) else None


def _fill(template: str, numbers: dict[str, int]) -> str:
    return _PLACEHOLDER.sub(lambda m: str(numbers[m[1]] + int(m[2] or 0)), template)


@functools.cache
def _compile(template: str) -> tuple[re.Pattern[str], dict[str, int]]:
    shifts, parts, end = {}, [], 0
    for m in _PLACEHOLDER.finditer(template):
        parts.append(re.escape(template[end : m.start()]) + rf"(?P<{m[1]}>0|[1-9][0-9]*)")
        shifts[m[1]] = int(m[2] or 0)
        end = m.end()
    return re.compile("".join(parts) + re.escape(template[end:])), shifts
