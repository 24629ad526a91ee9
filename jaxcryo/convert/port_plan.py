"""How each tensor of a source would be converted; all faults are found before any tensor is read."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable, Iterator

from jaxcryo.config import NetworkConfig
from jaxcryo.convert.torch_zip import StoredTensors
from jaxcryo.errors import InputError
from jaxcryo.models import architectures, build
from jaxcryo.models.naming import Rule, Source, match_source, match_target, our_shape, their_shape

Shape = tuple[int, ...]
_TRAINING = ("optimizer", "lr_scheduler", "callbacks.", "loops.", "scaler.", "amp_scaler.")
"""What training programs save besides a network."""
_AVERAGED = ("model_ema", "state_dict_ema", "model_state_dict_ema", "ema_state_dict", "ema_model", "ema")
_CONTAINERS = ("state_dict", "model_state_dict", "model", "module", "_orig_mod", *_AVERAGED)
"""Prefixes that programs put before a tensor's name, in any number and order: Lightning, timm, DataParallel,
torch.compile."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recognized:
    """What kind of source it is."""

    arch: str
    kind: Source
    prefix: str
    notes: tuple[str, ...] = ()
    """Notes for the user on the choice."""

    @property
    def is_averaged(self) -> bool:
        """Whether these are averaged weights (EMA)."""
        return _is_averaged(self.prefix)


def recognize(names: Iterable[str], arch: str, *, averaged: bool, file: str) -> Recognized:
    """The kind whose rules know the most names of a source, and the containers before them.

    Averaged weights (EMA) are taken if the network has any, even if some are missing; plain ones if it has none, or
    with `averaged` False.

    Raises:
        InputError: the names belong to another network, or to none that is known.
    """
    names = list(names)
    kinds = [(name, kind) for name, a in architectures().items() for kind in a.sources]
    counts: dict[tuple[int, str], int] = {}
    for (container, core), count in collections.Counter(map(_parted, names)).items():
        for n, (_, kind) in enumerate(kinds):
            if _leads_somewhere(kind, core):
                counts[n, container] = counts.get((n, container), 0) + count
    offered = {key: count for key, count in counts.items() if _is_averaged(key[1]) == averaged}
    notes = []
    if averaged and not offered:
        offered = counts
        passed = sorted({_parted(name)[0] for name in names if _is_averaged(_parted(name)[0])})
        if passed and counts:
            notes.append(
                f"{file}: the averaged weights (EMA) below {', '.join(map(repr, passed))} have no known "
                "names; the plain weights are used"
            )
    best = max(offered.values(), default=0)
    # The order of kinds matters: an encoder's names also occur in a whole network. The fullest container is taken.
    ranked = sorted(offered, key=lambda key: (key[0], -offered[key]))
    index, prefix = next((key for key in ranked if 2 * offered[key] >= best), (0, ""))
    found_arch, kind = kinds[index]
    if not best or found_arch != arch:
        expected = " or ".join(kind.title for name, kind in kinds if name == arch) or "a network that can be ported"
        hint = f"it looks like {kind.title}, which is for --arch {found_arch}" if best else _hint(names, counts, kinds)
        raise InputError(f"{file}: holds no tensors for --arch {arch}; expected those of {expected}; {hint}")
    return Recognized(arch=arch, kind=kind, prefix=prefix, notes=tuple(notes))


def _parted(name: str) -> tuple[str, str]:
    """Splits a tensor's name into the containers before it, and the rest."""
    parts = name.split(".")
    n = next((i for i, part in enumerate(parts) if part not in _CONTAINERS), len(parts))
    return "".join(f"{part}." for part in parts[:n]), ".".join(parts[n:])


def _is_averaged(prefix: str) -> bool:
    return any(part in _AVERAGED for part in prefix.split("."))


def _leads_somewhere(kind: Source, name: str) -> bool:
    match = match_source(kind.rules, name)
    return match is not None and match.target is not None


def _hint(names: list[str], counts: dict[tuple[int, str], int], kinds: list[tuple[str, Source]]) -> str:
    """Why nothing was found: only averaged weights, an unknown container, or entirely different names."""
    if counts:
        return "it holds only averaged weights (EMA): leave out --plain"
    below: collections.Counter[str] = collections.Counter()
    for name in names:
        for container, rest in _splits(name):
            if any(_leads_somewhere(kind, rest) for _, kind in kinds):
                below[container] += 1
                break
    if below and (common := below.most_common(1)[0][0]):
        return (
            f"its names begin with {common!r}, which is not a known container; save only the tensors below it, "
            "without that prefix in their names"
        )
    few = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "none"
    common = _common_prefix(names)
    return f"its names: {few}" + (f"; all begin with {common!r}" if common else "")


def _splits(name: str) -> Iterator[tuple[str, str]]:
    parts = name.split(".")
    for n in range(len(parts)):
        yield "".join(f"{part}." for part in parts[:n]), ".".join(parts[n:])


def _common_prefix(names: list[str]) -> str:
    """The containers that all names share."""
    if len(names) < 2:
        return ""
    first, last = min(names).split("."), max(names).split(".")
    n = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return "".join(f"{part}." for part in first[:n])


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
    """Every tensor of the source, and which of our tensors keep their initialization."""

    recognized: Recognized
    steps: tuple[Step, ...]
    fresh: dict[str, Shape]
    fixed: tuple[str, ...]
    """Tensors that must have certain values, or the plan is wrong."""


def make_plan(source: StoredTensors, recognized: Recognized, config: NetworkConfig, *, file: str) -> Plan:
    """The plan for a source.

    Raises:
        InputError: tensors are missing, unknown, of another shape or type, or share a place; it names them all.
    """
    kind, prefix = recognized.kind, recognized.prefix
    _, params, stats = build(config, seed=None)
    ours = {name: tuple(array.shape) for name, array in (params | stats).items()}
    faults: list[str] = []
    steps: list[Step] = []
    filled: dict[str, str] = {}
    for name, tensor in source.items():
        step = _step(name, tensor.shape, recognized, ours)
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
    fixed = tuple(prefix + name for name in kind.fixed if prefix + name in source)
    if faults:
        raise InputError(
            f"{file}: cannot be ported as {kind.title}; expected every tensor to have its place and every place its "
            f"tensor, found {len(faults)} fault{'s' * (len(faults) > 1)}:\n  " + "\n  ".join(sorted(faults))
        )
    return Plan(
        recognized=recognized,
        steps=tuple(steps),
        fresh=left,
        fixed=fixed,
    )


def classes_of(source: StoredTensors, recognized: Recognized, config: NetworkConfig) -> int | None:
    """The number of classes of a whole network, from its head's outputs; None for an encoder."""
    kind = recognized.kind
    tensor = source.get(recognized.prefix + kind.head) if kind.head else None
    each = kind.channels_per_class(config)
    if tensor is None or not tensor.shape or tensor.shape[0] % each or not tensor.shape[0]:
        return None
    return tensor.shape[0] // each


def table(plan: Plan) -> str:
    """The plan as a table: source, shapes, target or reason."""
    width = max(len(s.source) for s in plan.steps)
    lines = [f"{plan.recognized.kind.title}, names below {plan.recognized.prefix!r}"]
    for s in plan.steps:
        head = f"{s.source:{width}}  {_size(s.source_shape):>18}"
        if s.target is None:
            lines.append(f"{head}     ignored: {s.reason}")
        else:
            lines.append(f"{head}  -> {_size(s.target_shape or ()):>18}  {s.target}")
    lines += [f"{'(initialized)':{width}}  {'':>18}  -> {_size(shape):>18}  {n}" for n, shape in plan.fresh.items()]
    return "\n".join(lines)


def summary(plan: Plan) -> str:
    """The plan in one line."""
    used = [s for s in plan.steps if s.target is not None]
    values = sum(math.prod(s.target_shape or ()) for s in used)
    return (
        f"{plan.recognized.kind.title}: {len(used)} tensors ({values / 1e6:.1f} M values) ported, "
        f"{len(plan.steps) - len(used)} ignored, {len(plan.fresh)} initialized"
    )


def _step(name: str, shape: Shape, recognized: Recognized, ours: dict[str, Shape]) -> Step | None:
    kind, prefix = recognized.kind, recognized.prefix
    match = match_source(kind.rules, name.removeprefix(prefix)) if name.startswith(prefix) else None
    if match is None:
        reason = _why_outside(name, recognized)
        return Step(source=name, source_shape=shape, reason=reason) if reason else None
    if match.target is None:
        return Step(source=name, source_shape=shape, reason=match.rule.reason)
    channels = ours[match.target][-2] if match.rule.first_conv and match.target in ours else None
    return Step(
        source=name,
        source_shape=shape,
        target=match.target,
        target_shape=our_shape(shape, match.rule, channels),
        rule=match.rule,
    )


def _why_outside(name: str, recognized: Recognized) -> str | None:
    """Why a tensor that no rule knows may be left out; None if it may not."""
    prefix, (other, core) = recognized.prefix, _parted(name)
    if core == "n_averaged" and recognized.is_averaged:
        return "how many steps were averaged"
    if not prefix.startswith(other):
        if _is_averaged(other) and not recognized.is_averaged:
            return "averaged weights (EMA); the plain ones are used"
        if recognized.is_averaged and not _is_averaged(other):
            return "plain weights; the averaged ones (EMA) are used"
    first = prefix.split(".")[0]
    if name.startswith(_TRAINING) or ("state_dict" in first and not name.startswith(f"{first}.")):
        return "the training's state"
    return None


def _size(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "scalar"
