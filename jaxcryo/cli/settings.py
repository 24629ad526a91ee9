"""What decides the picks of a folder, so that results of other settings are never mixed with them."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from jaxcryo.calling import command
from jaxcryo.config import InferenceConfig
from jaxcryo.domain import ParticleType, Run
from jaxcryo.errors import InputError
from jaxcryo.files import read_json
from jaxcryo.picks.candidates import floor_of
from jaxcryo.picks.origin import unchanged
from jaxcryo.runtime.manifest import ModelEntry
from jaxcryo.serialize import types_to_json
from jaxcryo.tomogram.volumes import Reading

Note = Callable[[str], object]

FILE_NAME = "settings.json"


def settings_of(
    entries: Sequence[ModelEntry], types: Sequence[ParticleType], reading: Reading, *, tta: bool
) -> dict[str, Any]:
    """Plain values; equal where picks of the same tomogram are."""
    inference: InferenceConfig = entries[0].inference
    return {
        "engines": [
            {
                "name": e.name,
                "onnx_sha256": e.onnx_sha256,
                "stride_zyx": list(e.stride_zyx),
                "precision": e.precision,
                "source": e.source,
            }
            for e in entries
        ],
        "thresholds": {t.name: t.threshold for t in types},
        "floor": floor_of(types),
        "particles": [{k: v for k, v in t.items() if k != "threshold"} for t in types_to_json(types)],
        "nms_voxel": inference.nms_voxel,
        "merge_radius": inference.merge_radius,
        "refine": inference.refine,
        "tta": tta,
        "voxel_spacing_angstrom": reading.spacing_angstrom,
        "level": reading.level,
        "invert": reading.invert,
        # Only where they are given: folders from before these options stay as they are.
        **({} if reading.axes is None else {"axes": reading.axes}),
        **({} if reading.bytes_are == "auto" else {"bytes": reading.bytes_are}),
    }


def runs_done(out: pathlib.Path, settings: dict[str, Any], runs: Sequence[Run], *, force: bool, note: Note) -> set[str]:
    """Those of the runs whose picks of these very settings and of the same tomogram are in the folder.

    A run whose tomogram is another one, or has changed, is said.

    Raises:
        InputError: the folder holds picks of other settings, be it of these runs or of others.
    """
    counts = {
        folder.parent.name: len(list(folder.glob("jaxcryo_0_*.json")))
        for folder in (out / "ExperimentRuns").glob("*/Picks")
    }
    present = {name for name, count in counts.items() if count}
    if not present or force:
        return set()
    try:
        same = read_json(out / FILE_NAME, "expected the settings of an inference") == json.loads(json.dumps(settings))
    except InputError:
        same = False
    if not same:
        raise InputError(
            f"{out}: holds picks of {', '.join(sorted(present))} made with different models or settings; "
            f"choose another --out or pass --force (for other thresholds alone: {command('picks threshold')})"
        )
    complete = [run for run in runs if counts.get(run.name) == len(settings["thresholds"])]
    done, changes = unchanged(out / "ExperimentRuns", complete)
    for name, change in changes.items():
        note(f"{name}: {change}; it is done again")
    return done
