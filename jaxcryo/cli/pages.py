"""The pages of an inference: one for each run, and a list where there are several."""

from __future__ import annotations

import dataclasses
import pathlib
import shlex
from collections.abc import Mapping, Sequence

import numpy as np

from jaxcryo.calling import command
from jaxcryo.domain import ParticleType, Picks, Volume
from jaxcryo.metric import score
from jaxcryo.page import IndexRow, OverlayImages, Page, Sections, slice_images, versions, write_index, write_page
from jaxcryo.picks.folder import Settings
from jaxcryo.runtime.manifest import ModelEntry
from jaxcryo.serialize import to_plain
from jaxcryo.stores.address import Location

_FOLDER = "reports"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PageNotes:
    """What every page says of the inference."""

    sections: Sections
    commands: tuple[tuple[str, str], ...]
    correction_commands: tuple[tuple[str, str], ...]


def page_notes(
    entries: Sequence[ModelEntry], *, backend: str, reason: str, settings: Settings, engines: str, out: str
) -> PageNotes:
    """What is known before the first run is done."""
    sections: dict[str, Mapping[str, str]] = {}
    for entry in entries:
        sections[f"Network {entry.name}"] = {
            "architecture": f"{entry.arch}, {entry.size}, {entry.precision}",
            "weights": entry.source,
            "ONNX SHA-256": entry.running_sha256,
            "window": f"{_x(entry.patch_zyx)} voxels (z, y, x), every {_x(entry.stride_zyx)}, {entry.batch} at a time",
            "trained at": f"{entry.spacing_angstrom:g} Å",
        }
    shown_elsewhere = ("engines", "thresholds", "particles")
    plain = {k: v for k, v in to_plain(settings).items() if k not in shown_elsewhere and v is not None}
    sections["Settings"] = {"backend": f"{backend} ({reason})"} | {
        name.replace("_", " "): str(value) for name, value in plain.items()
    }
    again = command(f"picks threshold {shlex.quote(out)} other/ --thresholds thresholds.json")
    anew = command(f"infer --engines {shlex.quote(engines)} --data DATA --out new/ --thresholds thresholds.json")
    return PageNotes(
        sections=sections,
        commands=(
            ("Apply them to all runs, without running the networks again:", again),
            ("Other tomograms:", anew),
        ),
        correction_commands=(
            (
                "Apply the decisions to the picks, in every format they were written in:",
                command(f"picks apply {shlex.quote(out)} RUN-corrections.json"),
            ),
        ),
    )


def write_run_page(
    out: pathlib.Path,
    notes: PageNotes,
    volume: Volume,
    types: tuple[ParticleType, ...],
    overlay: OverlayImages,
    candidates: Picks,
    truth: Picks | None,
    *,
    floor: float,
    seconds: float,
    tomogram: Location,
) -> pathlib.Path:
    """Writes the page of one run, whose candidates are above `floor`, and returns its path."""
    path = page_path(out, volume.name)
    sections = {
        "Run": {"tomogram": str(tomogram), "time": f"{seconds:.1f} s to find the picks"} | versions(),
        **notes.sections,
    }
    page = Page(
        run=volume.name,
        grid=volume.grid,
        types=types,
        slices=slice_images(volume),
        overlay=overlay,
        picks=candidates,
        floor=floor,
        truth=truth,
        record=sections,
        commands=notes.commands,
        correction_commands=notes.correction_commands,
    )
    write_page(path, page)
    return path


def list_pages(
    out: pathlib.Path, found: Mapping[str, Picks], truth: Mapping[str, Picks], types: tuple[ParticleType, ...]
) -> list[pathlib.Path]:
    """Writes `index.html` where several runs have pages; returns the file to open first."""
    pages = {run: path for run in found if (path := page_path(out, run)).is_file()}
    if len(pages) < 2:
        return list(pages.values())
    rows = [
        IndexRow(
            run=run,
            file_name=path.name,
            counts=tuple(np.bincount(found[run].type_index, minlength=len(types)).tolist()),
            weighted_f4=score({run: truth[run]}, {run: found[run]}, types).weighted_f4 if run in truth else None,
        )
        for run, path in pages.items()
    ]
    index = out / _FOLDER / "index.html"
    write_index(index, types, rows)
    return [index]


def page_path(out: pathlib.Path, run: str) -> pathlib.Path:
    """Where the page of a run is."""
    return out / _FOLDER / f"{run}.html"


def _x(sizes: Sequence[int]) -> str:
    return "×".join(map(str, sizes))
