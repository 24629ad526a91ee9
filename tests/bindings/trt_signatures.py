"""What the methods of pybind11's classes take and return, read from their docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re


@dataclasses.dataclass(frozen=True)
class Signature:
    """One overload: the parameters without self, those that must be given, and what is returned."""

    parameters: tuple[str, ...]
    required: int
    returns: str

    def accepts(self, positional: int, keywords: set[str]) -> bool:
        names = self.parameters[positional:]
        return (
            positional <= len(self.parameters)
            and keywords <= set(names)
            and not set(self.parameters[:positional]) & keywords
            and set(self.parameters[positional : self.required]) <= keywords
        )


def signatures(cls: type, name: str) -> list[Signature]:
    """What the docstring of a method of pybind11 says; Python's own methods are asked themselves."""
    function = getattr(cls, name)
    found = []
    for parameters, returns in re.findall(rf"\b{name}\((self: .*?)\) -> ([^\n]+)", function.__doc__ or ""):
        parts = _split(parameters)[1:]
        names = [part.split(":")[0].split("=")[0].strip() for part in parts]
        found.append(Signature(tuple(names), sum("=" not in part for part in parts), returns.strip()))
    if not found and inspect.isfunction(function):
        parameters = list(inspect.signature(function).parameters.values())[1:]
        required = sum(p.default is inspect.Parameter.empty for p in parameters)
        found.append(Signature(tuple(p.name for p in parameters), required, ""))
    return found


def _split(parameters: str) -> list[str]:
    parts, depth = [""], 0
    for letter in parameters:
        depth += (letter in "([<{") - (letter in ")]>}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
