"""What stands in the pages of the documentation: fenced blocks, commands, code spans, links."""

from __future__ import annotations

import dataclasses
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
LANGUAGES = {"bash", "python", "json", "toml", "yaml", "text", "{toctree}", "{eval-rst}"}

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_FILE = re.compile(r"<!-- file: (\S+) -->")
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\S*)\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block: its language, its text without the indent, and the file that it is to be saved as."""

    page: str
    line: int
    language: str
    text: str
    file: str | None = None

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def source(page: pathlib.Path) -> str:
    """A page without its comments, whose lines keep their numbers; names of files to save as stay."""

    def blank(comment: re.Match[str]) -> str:
        return comment.group() if _FILE.fullmatch(comment.group()) else "\n" * comment.group().count("\n")

    return _COMMENT.sub(blank, page.read_text(encoding="utf-8"))


def blocks(page: pathlib.Path) -> list[Block]:
    """The fenced blocks of a page in their order."""
    text = source(page)
    found = []
    for match in _FENCE.finditer(text):
        named = _FILE.search(text[: match.start()].rstrip("\n").rpartition("\n")[2])
        found.append(
            Block(
                page=page.name,
                line=text.count("\n", 0, match.start()) + 1,
                language=match["language"],
                text="".join(line.removeprefix(match["indent"]) for line in match["text"].splitlines(keepends=True)),
                file=named.group(1) if named else None,
            )
        )
    return found


def prose(page: pathlib.Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", source(page))


def spans(page: pathlib.Path) -> list[str]:
    """What stands in backticks in a page's prose."""
    return _SPAN.findall(prose(page))


def links(page: pathlib.Path) -> list[str]:
    """Where a page's links lead to."""
    return _LINK.findall(prose(page))


def commands(block: Block) -> list[str]:
    """The commands of a shell block, one each: lines joined where they go on, comments left out, split at `&&`."""
    joined = re.sub(r"\s*\\\n\s*", " ", block.text)
    lines = [line.strip().removeprefix("!") for line in joined.splitlines()]
    kept = [line for line in lines if line and not line.startswith("#")]
    return [command.strip() for line in kept for command in line.split("&&")]
