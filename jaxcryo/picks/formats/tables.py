"""Rows of CSV files."""

from __future__ import annotations

import csv
import io
import math
import pathlib
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxcryo.errors import InputError
from jaxcryo.files import read_text


def read_rows(
    path: pathlib.Path, expected: str, needed: Sequence[Sequence[str]]
) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The place (file and line) and the cells of each row by the names of the first line.

    `needed` lists the columns that there must be, each by the names it may have.

    Raises:
        InputError: the file cannot be read, lacks a column or has it twice, or a row is of another length.
    """
    reader = csv.reader(io.StringIO(read_text(path, expected), newline=""))
    try:
        header = [name.strip() for name in next(reader, [])]
        twice = sorted({n for n in header if header.count(n) > 1})
        missing = [names[0] for names in needed if not any(n in header for n in names)]
        if twice or missing:
            problem = f"has the column {reprlib.repr(twice[0])} twice" if twice else f"lacks {', '.join(missing)}"
            raise InputError(f"{path}: {problem}; {expected}")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if not row:
                continue
            if len(row) != len(header):
                raise InputError(f"{where}: has {len(row)} cells; expected {len(header)} as in the first line")
            yield where, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: is not CSV ({error}); {expected}") from error


def columns_of(path: pathlib.Path) -> tuple[str, ...]:
    """The names in a CSV file's first line; none where it cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return tuple(name.strip() for name in next(csv.reader([stream.readline(65536)]), []))
    except (OSError, UnicodeDecodeError, csv.Error):
        return ()


def number(text: str, what: str, where: str) -> float:
    """A finite number from a cell. Raises InputError with the place."""
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: {what} is {text[:40]!r}; expected a finite number: correct or remove the line")
    return value


def to_csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """The text of a CSV file; floats in the shortest form that reads back as the same number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
