"""What a port would do with every tensor of a source; all faults are found before any tensor is read."""

from __future__ import annotations

import dataclasses
import math

from jaxcryo.config import ModelConfig
from jaxcryo.convert.kinds import Recognised
from jaxcryo.convert.rules import Rule, match_source, match_target, our_shape, their_shape
from jaxcryo.convert.rules_yu4u import SLICER
from jaxcryo.convert.stored import StoredTensors
from jaxcryo.errors import InputError
from jaxcryo.models import build

Shape = tuple[int, ...]
_TRAINING = ("optimizer", "lr_scheduler", "callbacks.", "loops.", "scaler.", "amp_scaler.")
"""What training programs save beside a network."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One tensor of the source goes to a place in our network, or is ignored for a reason."""

    source: str
    source_shape: Shape
    target: str | None = None
    target_shape: Shape | None = None
    rule: Rule | None = None
    reason: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Every tensor of the source, and what of our network is left to its initialisation."""

    recognised: Recognised
    channels: int
    """Of the images that the first convolution takes."""
    steps: tuple[Step, ...]
    fresh: dict[str, Shape]
    slicer: str | None
    """The tensor that must be the identity for the plan to be right."""


def make_plan(source: StoredTensors, recognised: Recognised, config: ModelConfig, *, file: str) -> Plan:
    """The plan for a source.

    Raises:
        InputError: tensors are missing, unknown, of another shape or type, or meet in one place; it names them all.
    """
    kind, prefix = recognised.kind, recognised.prefix
    _, params, stats = build(config, seed=None)
    ours = {name: tuple(array.shape) for name, array in (params | stats).items()}
    faults: list[str] = []
    steps: list[Step] = []
    filled: dict[str, str] = {}
    for name, tensor in source.items():
        step = _step(name, tensor.shape, recognised, config.encoder.in_channels)
        if step is None or (step.target is not None and step.target not in ours):
            faults.append(f"unknown: {name} ({_size(tensor.shape)}) has no place in the network")
            continue
        steps.append(step)
        if step.target is None or step.rule is None:
            continue
        expected = ours[step.target]
        if step.target in filled:
            faults.append(f"twice: {name} and {filled[step.target]} are both for {step.target}")
        elif step.target_shape != expected:
            wanted = _size(their_shape(expected, step.rule))
            faults.append(f"shape: {name} is {_size(tensor.shape)}, expected {wanted} (for {step.target})")
        elif not tensor.is_floating:
            faults.append(f"type: {name} is {tensor.dtype}, expected floating-point values")
        filled[step.target] = name
    left = {name: shape for name, shape in ours.items() if name not in filled}
    for name, shape in left.items():
        match = match_target(kind.rules, name)
        if match is not None:
            wanted = _size(their_shape(shape, match.rule))
            faults.append(f"missing: {prefix}{match.source} ({wanted}, for {name})")
    slicer = prefix + SLICER if kind.head and prefix + SLICER in source else None
    if faults:
        raise InputError(
            f"{file}: cannot be ported as {kind.title}; expected every tensor to have its place and every place its "
            f"tensor, found {len(faults)} fault{'s' * (len(faults) > 1)}:\n  " + "\n  ".join(sorted(faults))
        )
    return Plan(
        recognised=recognised,
        channels=config.encoder.in_channels,
        steps=tuple(steps),
        fresh=left,
        slicer=slicer,
    )


def classes_of(source: StoredTensors, recognised: Recognised, head_stride: int) -> int | None:
    """How many classes a whole model tells apart, by its head's channels; None for an encoder."""
    kind = recognised.kind
    tensor = source.get(recognised.prefix + kind.head) if kind.head else None
    if tensor is None or not tensor.shape or tensor.shape[0] % head_stride**3 or not tensor.shape[0]:
        return None
    return tensor.shape[0] // head_stride**3


def table(plan: Plan) -> str:
    """The plan for people: source, shapes, target or reason."""
    width = max(len(s.source) for s in plan.steps)
    lines = [f"{plan.recognised.kind.title}, names below {plan.recognised.prefix!r}"]
    for s in plan.steps:
        head = f"{s.source:{width}}  {_size(s.source_shape):>18}"
        if s.target is None:
            lines.append(f"{head}     ignored: {s.reason}")
        else:
            lines.append(f"{head}  -> {_size(s.target_shape or ()):>18}  {s.target}")
    lines += [f"{'(initialised)':{width}}  {'':>18}  -> {_size(shape):>18}  {n}" for n, shape in plan.fresh.items()]
    return "\n".join(lines)


def summary(plan: Plan) -> str:
    """The plan in one line."""
    used = [s for s in plan.steps if s.target is not None]
    values = sum(math.prod(s.target_shape or ()) for s in used)
    return (
        f"{plan.recognised.kind.title}: {len(used)} tensors ({values / 1e6:.1f} M values) ported, "
        f"{len(plan.steps) - len(used)} ignored, {len(plan.fresh)} initialised"
    )


def _step(name: str, shape: Shape, recognised: Recognised, channels: int) -> Step | None:
    kind, prefix = recognised.kind, recognised.prefix
    match = match_source(kind.rules, name.removeprefix(prefix)) if name.startswith(prefix) else None
    if match is None:
        reason = _why_outside(name, recognised)
        return Step(source=name, source_shape=shape, reason=reason) if reason else None
    if match.target is None:
        return Step(source=name, source_shape=shape, reason=match.rule.reason)
    return Step(
        source=name,
        source_shape=shape,
        target=match.target,
        target_shape=our_shape(shape, match.rule, channels),
        rule=match.rule,
    )


def _why_outside(name: str, recognised: Recognised) -> str | None:
    """Why a tensor that no rule knows may be left out; None where it may not."""
    kind, prefix = recognised.kind, recognised.prefix
    others = [p for p in (*kind.averaged, *kind.plain) if name.startswith(p) and not prefix.startswith(p)]
    if any(p in kind.averaged for p in others):
        return "averaged weights (EMA); the plain ones were asked for"
    if others and prefix in kind.averaged:
        return "plain weights; the averaged ones (EMA) are used"
    in_state_dict = prefix.startswith("state_dict") and name.startswith(prefix[: prefix.index(".") + 1])
    if name.startswith(_TRAINING) or (prefix.startswith("state_dict") and not in_state_dict):
        return "the training's state"
    return None


def _size(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "scalar"
