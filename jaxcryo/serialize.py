"""Configuration records as plain values for JSON, and back, strictly."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

import cattrs

from jaxcryo.errors import InputError

T = TypeVar("T")

_MOST_FAULTS = 10
_LONGEST_FAULT = 300

_TAG = "arch"
"""In a union of records, says which one it is: the class's name in lower case, without 'Config'."""


def to_plain(record: Any) -> Any:
    """Dictionaries, lists, strings, numbers and None that `from_plain` reads back."""
    return _converter().unstructure(record)


def from_plain(cls: type[T], data: Any, what: str) -> T:
    """The record that the plain values describe. Fields with a default may be missing, unknown ones may not be there.

    Raises:
        InputError: values do not fit; the message begins with `what` and names the fields.
    """
    try:
        return _converter().structure(data, cls)
    except Exception as error:  # cattrs groups whatever the records' own checks raise
        faults = list(dict.fromkeys(_shortened(fault) for fault in _faults(error, "")))
        more = f"; and {len(faults) - _MOST_FAULTS} more" if len(faults) > _MOST_FAULTS else ""
        raise InputError(f"{what}: {'; '.join(faults[:_MOST_FAULTS])}{more}") from error


@functools.cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, unstruct_collection_overrides={tuple: list})
    converter.register_structure_hook(int, _whole_number)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(str, functools.partial(_exactly, kind=str, name="a text"))
    converter.register_structure_hook(bool, functools.partial(_exactly, kind=bool, name="true or false"))
    converter.register_structure_hook_factory(_is_union_of_records, functools.partial(_union_reader, converter))
    converter.register_unstructure_hook_factory(_is_union_of_records, functools.partial(_union_writer, converter))
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


def _is_union_of_records(kind: Any) -> bool:
    if typing.get_origin(kind) not in (types.UnionType, typing.Union):
        return False
    members = typing.get_args(kind)
    return len(members) > 1 and all(dataclasses.is_dataclass(m) for m in members)


def _tag(cls: type) -> str:
    return cls.__name__.removesuffix("Config").lower()


def _union_reader(converter: cattrs.Converter, union: Any) -> Callable[[Any, Any], Any]:
    members = {_tag(cls): cls for cls in typing.get_args(union)}

    def read(value: Any, _: Any) -> Any:
        tag = value.get(_TAG) if isinstance(value, dict) else None
        if tag not in members:
            raise InputError(f"{_TAG!r} is {tag!r}; expected one of {', '.join(members)}")
        return converter.structure({k: v for k, v in value.items() if k != _TAG}, members[tag])

    return read


def _union_writer(converter: cattrs.Converter, union: Any) -> Callable[[Any], Any]:
    def write(value: Any) -> Any:
        return {_TAG: _tag(type(value)), **converter.unstructure(value, type(value))}

    return write


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
