"""The messages that the documentation explains are still among the program's, whatever their exact wording."""

from __future__ import annotations

import ast
import functools
import re

import pytest
from doc_pages import ROOT, prose

# Of pip and the shell.
FOREIGN = {"requires a different Python", "jaxcryo: command not found"}
ROW = re.compile(r"^\| `([^`]+)`[^|]* \|", re.MULTILINE)
SHARED = 0.6
"""Share of a listed message's words that one string of the sources must have: who searches the page for what they read
on the screen arrives at the row."""


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]{4,}", text.lower()))


@functools.cache
def strings() -> list[frozenset[str]]:
    """The words of every string of the sources."""
    found = set()
    for path in (ROOT / "jaxcryo").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else " " for p in node.values)
                found.add(words("".join(map(str, parts))))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(words(node.value))
    return list(found)


def is_said(message: str, every: list[frozenset[str]]) -> bool:
    wanted = words(message)
    return any(len(wanted & text) >= SHARED * len(wanted) for text in every if len(text) <= 40)


def messages(name: str) -> list[str]:
    """The messages in the first columns of a page's tables."""
    cells = ROW.findall(prose(ROOT / "docs" / name))
    return [cell for cell in cells if not cell.startswith(("--", "picks/"))]


@pytest.mark.parametrize("page", ["troubleshooting.md", "t4.md"])
def test_messages_are_the_programs(page: str) -> None:
    every = strings()
    listed = [m for m in messages(page) if m not in FOREIGN]
    assert len(listed) > 5
    assert [m for m in listed if not is_said(m, every)] == []


def test_a_message_of_nobody_is_noticed() -> None:
    every = strings()
    assert not is_said("the moon is in the way of this telescope", every)
    assert not is_said("tomogram has turned upside down overnight", every)
