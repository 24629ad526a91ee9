"""The messages that the documentation explains are those of the program."""

from __future__ import annotations

import ast
import pathlib
import re

import pytest
from doc_pages import ROOT, prose

# Of pip and the shell.
FOREIGN = {"requires a different Python", "jaxcryo: command not found"}
ROW = re.compile(r"^\| `([^`]+)`[^|]* \|", re.MULTILINE)


def texts() -> list[str]:
    """All strings of the sources, with … where values are put in."""
    found = []
    for path in [*(ROOT / "jaxcryo").rglob("*.py"), *(ROOT / "convert").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def messages(name: str) -> list[str]:
    """The messages in the first columns of a page's tables."""
    cells = ROW.findall(prose(ROOT / "docs" / name))
    return [cell for cell in cells if not cell.startswith(("--", "picks/"))]


@pytest.mark.parametrize("page", ["troubleshooting.md", "t4.md"])
def test_messages_are_the_programs(page: str) -> None:
    every = texts()
    listed = [m for m in messages(page) if m not in FOREIGN]
    assert len(listed) > 5
    for message in listed:
        pattern = re.compile(".*".join(re.escape(part.strip()) for part in message.split("…")), re.DOTALL)
        assert any(pattern.search(text) for text in every), f"{page}: no message says {message!r}"


def test_a_message_of_nobody_is_noticed() -> None:
    assert not any("the moon is in the way" in text for text in texts())
    assert pathlib.Path(ROOT / "docs" / "troubleshooting.md").exists()
