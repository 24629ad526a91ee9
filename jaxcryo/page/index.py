"""A list of the pages of several runs."""

from __future__ import annotations

import dataclasses
import html
import pathlib
import urllib.parse
from collections.abc import Sequence

from jaxcryo.domain import ParticleType
from jaxcryo.files import write_text
from jaxcryo.page.page import asset


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexRow:
    """One run."""

    run: str
    file_name: str
    counts: tuple[int, ...]
    """Picks of each type."""
    weighted_f4: float | None
    """None if the ground truth is not known."""


def write_index(path: str | pathlib.Path, types: Sequence[ParticleType], rows: Sequence[IndexRow]) -> None:
    """Writes the list, with links to the pages beside it.

    Raises:
        InputError: it cannot be written.
    """
    known = any(row.weighted_f4 is not None for row in rows)
    head = ["run", *(t.name for t in types), "all", *(["weighted F4"] if known else [])]
    body = []
    for row in rows:
        link = f'<a href="{html.escape(urllib.parse.quote(row.file_name))}">{html.escape(row.run)}</a>'
        score = [] if not known else ["–" if row.weighted_f4 is None else f"{row.weighted_f4:.3f}"]
        cells = [*map(str, row.counts), str(sum(row.counts)), *score]
        body.append(f'<tr><th scope="row">{link}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>')
    text = asset("index.html")
    for key, value in (
        ("{{STYLE}}", asset("page.css")),
        ("{{HEAD}}", "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)),
        ("{{BODY}}", "\n".join(body)),
    ):
        text = text.replace(key, value)
    write_text(path, text)
