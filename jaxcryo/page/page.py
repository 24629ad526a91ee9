"""Joins data, style and script into one self-contained HTML file."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import html
import importlib.metadata
import importlib.resources
import json
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from jaxcryo.domain import ParticleType, Picks, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.files import atomic_path, write_text
from jaxcryo.page.content import grid_content, metric_content, packed, shown_order, types_content
from jaxcryo.page.overlay import OverlayImages
from jaxcryo.page.slices import SliceImages

Sections = Mapping[str, Mapping[str, str]]
"""Rows of labels and texts, below the titles of their sections."""

_PACKAGES = ("jaxcryo", "jax", "numpy", "openvino")
_CONTENT = '<script type="application/json" id="content">'
_SCRIPTS = (
    "data.js", "metric.js", "state.js", "corrections.js", "viewer.js", "planes.js",
    "charts.js", "panel.js", "gallery.js", "main.js", "editing.js", "start.js",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
    """All that a page shows of one run."""

    run: str
    grid: VoxelGrid
    types: tuple[ParticleType, ...]
    """With the thresholds in use."""
    slices: SliceImages
    overlay: OverlayImages | None
    picks: Picks
    """All above `floor`."""
    floor: float
    truth: Picks | None
    record: Sections
    commands: Sequence[tuple[str, str]]
    """Descriptions, and commands that use the saved `thresholds.json`."""
    correction_commands: Sequence[tuple[str, str]] = ()
    """The same, for saved corrections."""


def write_page(path: str | pathlib.Path, page: Page) -> None:
    """Writes the file, whole.

    Raises:
        InputError: it cannot be written.
    """
    before, after = asset("page.html").split("{{DATA}}")
    for key, text in (("{{TITLE}}", html.escape(page.run)), ("{{STYLE}}", asset("page.css"))):
        before = before.replace(key, text)
    script = "\n".join(asset(name) for name in _SCRIPTS)
    with atomic_path(path) as fresh, fresh.open("w", encoding="utf-8", newline="\n") as file:
        file.write(before)
        file.write(f"{_CONTENT}{_json(_content(page))}</script>\n")
        for name, images in (("slice", page.slices.jpegs), ("heat", page.overlay.pngs if page.overlay else ())):
            for i, data in enumerate(images):
                file.write(f'<script type="text/plain" id="{name}-{i}">')
                file.write(base64.b64encode(data).decode("ascii"))
                file.write("</script>\n")
        file.write(after.replace("{{SCRIPT}}", script))


def change_thresholds(
    path: str | pathlib.Path, thresholds: Mapping[str, float], record: Sections, candidates: Picks
) -> None:
    """Sets the thresholds and probabilities of a page that `write_page` wrote, and adds to its record.

    `candidates` are the page's picks, with their probabilities if known.

    Raises:
        InputError: it is not such a page, or cannot be written.
    """
    path = pathlib.Path(path)
    text = path.read_text(encoding="utf-8")
    before, mark, rest = text.partition(_CONTENT)
    plain, end, after = rest.partition("</script>")
    try:
        content = json.loads(plain)
        for index, kind in enumerate(content["types"]):
            shown = shown_order(candidates, index, len(content["types"]))
            if candidates.probability is not None:
                kind["picks"]["probability"] = packed(candidates.probability[shown])
            kind["threshold"] = thresholds.get(kind["name"], kind["threshold"])
        content["record"] |= record
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is not a page of an inference ({error}); remove it") from error
    write_text(path, before + mark + _json(content) + end + after)


def asset(name: str) -> str:
    """The text of one of the files that a page is made of."""
    return importlib.resources.files("jaxcryo.page").joinpath("assets", name).read_text(encoding="utf-8")


def _content(page: Page) -> dict[str, Any]:
    overlay = page.overlay
    return {
        "run": page.run,
        "grid": grid_content(page.grid),
        "slices": {
            "count": len(page.slices.jpegs),
            "bin_zyx": page.slices.bin_zyx,
            "size_yx": page.slices.size_yx,
        },
        "overlay": None
        if overlay is None
        else {"count": len(overlay.pngs), "bin_zyx": overlay.bin_zyx, "size_yx": overlay.size_yx},
        "floor": page.floor,
        "types": types_content(page.types, page.picks, page.truth, page.grid, page.floor),
        "metric": metric_content(),
        "known": page.truth is not None,
        "record": page.record,
        "commands": list(page.commands),
        "correction_commands": list(page.correction_commands),
    }


def _json(content: Any) -> str:
    """JSON that cannot end a script element, whatever names it holds."""
    return json.dumps(content, allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def versions() -> dict[str, str]:
    """The programs that made a page, and the day."""
    found = {"date": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z")}
    found["Python"] = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
