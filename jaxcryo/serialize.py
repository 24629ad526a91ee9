"""Configuration records as plain values for JSON, and back, strictly."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import cattrs

from jaxcryo.domain import ParticleType, check_types
from jaxcryo.errors import InputError

T = TypeVar("T")

_MOST_FAULTS = 10
_LONGEST_FAULT = 300


def tell_apart(base: type[T], *, by: str, members: Callable[[], Mapping[str, type[T]]]) -> None:
    """Fields of type `base` hold one of several records; in plain values the key `by` says which.

    Its value is the record's class attribute of that name; `members` returns the known records.
    """
    converter = _converter()

    def read(value: Any, _: Any) -> T:
        known = members()
        tag = value.get(by) if isinstance(value, dict) else None
        if not isinstance(tag, str) or tag not in known:
            raise InputError(f"{by!r} is {tag!r}; expected one of {', '.join(known)}")
        return converter.structure({k: v for k, v in value.items() if k != by}, known[tag])

    def write(value: Any) -> dict[str, Any]:
        return {by: getattr(value, by), **converter.unstructure(value, type(value))}

    converter.register_structure_hook_func(lambda kind: kind is base, read)
    converter.register_unstructure_hook_func(lambda kind: kind is base, write)


def to_plain(record: Any) -> Any:
    """Dictionaries, lists, strings, numbers and None that `from_plain` reads back."""
    return _converter().unstructure(record)


def from_plain(cls: type[T], data: Any, what: str) -> T:
    """The record that the plain values describe. Fields with a default may be missing; unknown fields are refused.

    Raises:
        InputError: values do not fit; the message begins with `what` and names the fields.
    """
    try:
        return _converter().structure(data, cls)
    except Exception as error:  # cattrs groups whatever the records' own checks raise
        faults = list(dict.fromkeys(_shortened(fault) for fault in _faults(error, "")))
        more = f"; and {len(faults) - _MOST_FAULTS} more" if len(faults) > _MOST_FAULTS else ""
        raise InputError(f"{what}: {'; '.join(faults[:_MOST_FAULTS])}{more}") from error


def types_to_json(types: Iterable[ParticleType]) -> list[dict[str, Any]]:
    """Plain values that `types_from_json` reads back."""
    return [to_plain(t) for t in types]


def types_from_json(entries: Any) -> tuple[ParticleType, ...]:
    """Particle types from what `types_to_json` gave.

    Raises:
        InputError: it is not a list, an entry has missing or unknown fields, or two have one name.
    """
    types = from_plain(tuple[ParticleType, ...], entries, "not a particle type")
    check_types(types)
    return types


@functools.cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, unstruct_collection_overrides={tuple: list})
    converter.register_structure_hook(int, _whole_number)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(str, functools.partial(_exactly, kind=str, name="a text"))
    converter.register_structure_hook(bool, functools.partial(_exactly, kind=bool, name="true or false"))
    return converter


def _whole_number(value: Any, _: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{value!r} is not a whole number")
    return value


def _number(value: Any, _: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{value!r} is not a number")
    return float(value)


def _exactly(value: Any, _: Any, *, kind: type, name: str) -> Any:
    if not isinstance(value, kind):
        raise InputError(f"{value!r} is not {name}")
    return value


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_FAULT else f"{text[: _LONGEST_FAULT // 2]}…{text[-_LONGEST_FAULT // 2 :]}"


def _faults(error: BaseException, field: str) -> list[str]:
    """One line for each thing that is wrong, with the path of its field."""
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        return [f"{_join(field, key)} is not a known field" for key in sorted(map(str, error.extra_fields))]
    if isinstance(error, BaseExceptionGroup):
        return [line for inner in error.exceptions for line in _faults(inner, _join(field, _place(inner)))]
    here = field or "the whole"
    if isinstance(error, KeyError):
        return [f"{here} is missing"]
    if isinstance(error, InputError):
        return [f"{here}: {error}" if field else str(error)]
    return [f"{here} does not fit ({error})"]


def _place(error: BaseException) -> str:
    """Where cattrs noted that the error arose: a field's name or an index."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, cattrs.AttributeValidationNote):
            return note.name
        if isinstance(note, cattrs.IterableValidationNote):
            return f"[{note.index}]"
    return ""


def _join(field: str, name: str) -> str:
    if not field or not name or name.startswith("["):
        return field + name
    return f"{field}.{name}"
