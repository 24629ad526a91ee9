"""The kinds of source that can be ported: which rules, and below which prefixes their names may stand."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from jaxcryo.config import Arch
from jaxcryo.convert.rules import Rule, match_source, with_prefix
from jaxcryo.convert.rules_convnext import convnext_rules
from jaxcryo.convert.rules_resnet_rs import resnet_rs_rules
from jaxcryo.convert.rules_yu4u import yu4u_rules
from jaxcryo.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceKind:
    """A network as somebody else names its tensors."""

    title: str
    arch: Arch
    rules: tuple[Rule, ...]
    averaged: tuple[str, ...]
    """Prefixes of averaged weights, preferred to the plain ones."""
    plain: tuple[str, ...]
    head: str | None = None
    """The tensor whose first axis has the classes; None where the source is an encoder alone."""

    def prefixes(self, averaged: bool) -> tuple[str, ...]:
        """Where to look, the preferred places first; without `averaged`, those of plain weights alone."""
        return (*self.averaged, *self.plain) if averaged else self.plain


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recognised:
    """What a source was found to be."""

    kind: SourceKind
    prefix: str


_TIMM_AVERAGED = ("state_dict_ema.", "model_ema.")
_TIMM_PLAIN = ("state_dict.", "model.", "")
KINDS = (
    SourceKind(
        title="yu4u's network",
        arch="yu4u",
        rules=yu4u_rules(),
        averaged=("state_dict.model_ema.module.", "model_ema.module."),
        plain=("state_dict.model.", "model.", "state_dict.", ""),
        head="segmentation_head.weight",
    ),
    SourceKind(
        title="timm's ConvNeXt",
        arch="yu4u",
        rules=with_prefix(convnext_rules("."), target="encoder."),
        averaged=_TIMM_AVERAGED,
        plain=_TIMM_PLAIN,
    ),
    SourceKind(
        title="timm's ConvNeXt, features only",
        arch="yu4u",
        rules=with_prefix(convnext_rules("_"), target="encoder."),
        averaged=_TIMM_AVERAGED,
        plain=_TIMM_PLAIN,
    ),
    SourceKind(
        title="timm's ResNet-RS",
        arch="tattaka",
        rules=with_prefix(resnet_rs_rules(), target="encoder."),
        averaged=_TIMM_AVERAGED,
        plain=_TIMM_PLAIN,
    ),
)


def recognise(names: Iterable[str], arch: Arch, *, averaged: bool, file: str) -> Recognised:
    """The kind whose rules know the most names of a source; among prefixes, the preferred one with half of the best.

    Raises:
        InputError: the names are of another network, or of none that is known.
    """
    names = list(names)
    counts = {
        (n, prefix): sum(
            name.startswith(prefix) and _leads_somewhere(kind, name.removeprefix(prefix)) for name in names
        )
        for n, kind in enumerate(KINDS)
        for prefix in kind.prefixes(averaged)
    }
    best = max(counts.values())
    index, prefix = next(key for key, count in counts.items() if 2 * count >= best)
    kind = KINDS[index]
    if not best or kind.arch != arch:
        hint = f"it looks like {kind.title}, which is for --arch {kind.arch}" if best else f"its names: {_few(names)}"
        raise InputError(
            f"{file}: holds no tensors for --arch {arch}; expected those of "
            f"{' or '.join(k.title for k in KINDS if k.arch == arch)}; {hint}"
        )
    return Recognised(kind=kind, prefix=prefix)


def _leads_somewhere(kind: SourceKind, name: str) -> bool:
    match = match_source(kind.rules, name)
    return match is not None and match.target is not None


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "none"
