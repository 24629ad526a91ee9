"""The card of published models: what they find, their training data, scores and limits, and what to cite."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxcryo.domain import ParticleType
from jaxcryo.errors import InputError
from jaxcryo.files import read_json, read_text
from jaxcryo.runtime.manifest import ModelEntry

_SCORES = "expected what 'jaxcryo score --json' printed"
_CITATION = """\
@misc{uchida2025,
  title = {2.5D U-Net with Depth Reduction for 3D CryoET Object Identification},
  author = {Uchida, Yusuke and Fukui, Takaaki},
  year = {2025},
  eprint = {2502.13484},
  archivePrefix = {arXiv}
}"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Said:
    """What only the publisher knows, and no file of the models says."""

    license: str
    """The hub's name of the license, such as `mit` or `cc-by-4.0`."""
    scores: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    """Outputs of `jaxcryo score --json`, by what was scored."""
    notes: str = ""
    """Markdown: the training tomograms, and whatever else users should know."""


def read_scores(files: Sequence[pathlib.Path]) -> dict[str, Mapping[str, Any]]:
    """Scores by their files' names.

    Raises:
        InputError: a file cannot be read or holds something else, or two have one name.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for file in files:
        data = read_json(file, _SCORES)
        types = data.get("types") if isinstance(data, dict) else None
        if not isinstance(types, dict) or not _are_numbers([data.get("weighted_f4")]):
            raise InputError(f"{file}: holds no score; {_SCORES}")
        wanted = ("truth", "found", "precision", "recall", "f4")
        if not all(isinstance(t, dict) and _are_numbers([t.get(key) for key in wanted]) for t in types.values()):
            raise InputError(f"{file}: lacks {', '.join(wanted)} of a particle type; {_SCORES}")
        if file.stem in found:
            raise InputError(f"{file}: another file of scores is called {file.stem} too; rename one")
        found[file.stem] = data
    return found


def read_notes(file: pathlib.Path | None) -> str:
    """The publisher's own words; raises InputError where they cannot be read."""
    return "" if file is None else read_text(file, "expected Markdown about the models").strip()


def card(entries: Sequence[ModelEntry], name: str, said: Said) -> str:
    """The card in Markdown, of models that will be called `user/name`."""
    sections = {
        "": _opening(entries, name),
        "What they find": _types(entries[0].types, entries),
        "What they saw": _training(entries, said.notes),
        "Scores": _scores(said.scores),
        "Limits": _limits(entries),
        "License and citation": f"License: {said.license}. The method is that of:\n\n```bibtex\n{_CITATION}\n```",
    }
    header = {
        "license": said.license,
        "library_name": "jaxcryo",
        "tags": ["cryo-et", "particle-picking", "onnx", *sorted({e.arch for e in entries})],
    }
    # Every JSON value is YAML.
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in header.items()), "---", ""]
    lines += [f"# {name.rpartition('/')[2]}", "", sections.pop("")]
    for title, text in sections.items():
        lines += ["", f"## {title}", text]
    return "\n".join(lines) + "\n"


def _opening(entries: Sequence[ModelEntry], name: str) -> str:
    several = f"{len(entries)} networks, which are averaged, find" if len(entries) > 1 else "A network that finds"
    return (
        f"{several} particles in cryo-electron tomograms, for jaxcryo: ONNX graphs and Flax weights (safetensors, no "
        "pickle).\n\n"
        "In a checkout of jaxcryo:\n\n"
        f"```bash\npip install -e '.[hub]'\njaxcryo infer --engines hf://{name} --data tomograms/\n```"
    )


def _types(types: Sequence[ParticleType], entries: Sequence[ModelEntry]) -> str:
    several = len(entries) > 1
    heads = [f"threshold of {e.name}" if several else "threshold" for e in entries]
    rows = [
        [t.name, f"{t.radius_angstrom:g}", *(f"{e.types[i].threshold:.3f}" for e in entries)]
        for i, t in enumerate(types)
    ]
    return _table(["particle", "radius (Å)", *heads], rows)


def _training(entries: Sequence[ModelEntry], notes: str) -> str:
    rows = [
        [e.name, f"{e.arch}, {e.size}", "×".join(map(str, e.patch_zyx)), f"{e.spacing_angstrom:g}", e.source]
        for e in entries
    ]
    heads = ["model", "architecture", "window (z, y, x)", "voxel (Å)", "from"]
    told = notes or "The publisher has not said which tomograms were used for training."
    return f"{told}\n\n{_table(heads, rows)}"


def _scores(scores: Mapping[str, Mapping[str, Any]]) -> str:
    if not scores:
        return "None were published with them: score them on tomograms like yours before you rely on them."
    parts = []
    for name, score in scores.items():
        rows = [
            [t, str(s["truth"]), str(s["found"]), f"{s['precision']:.3f}", f"{s['recall']:.3f}", f"{s['f4']:.3f}"]
            for t, s in score["types"].items()
        ]
        runs = score.get("runs")
        of = f" on {len(runs)} runs ({', '.join(map(str, runs[:10]))})" if isinstance(runs, list) and runs else ""
        parts.append(
            f"**{name}**: weighted F4 {score['weighted_f4']:.3f}{of}\n\n"
            + _table(["particle", "known", "found", "precision", "recall", "F4"], rows)
        )
    return "\n\n".join(parts)


def _limits(entries: Sequence[ModelEntry]) -> str:
    first = entries[0]
    lines = [
        "Only the particles above are distinguished; anything else may be taken for one of them.",
        f"Tomograms are resampled to {first.spacing_angstrom:g} Å; tomograms with much larger voxels lack the detail "
        "the model needs.",
    ]
    known = [e.skewness for e in entries if e.skewness is not None]
    if known:
        what = "dark" if known[0] < 0 else "bright"
        lines.append(f"In training {what} things stood out (skewness {known[0]:+.1f}); for others there is `--invert`.")
    rules = sorted({e.intensity.rule for e in entries})
    lines.append(f"Intensities are normalized by the rule {' and '.join(rules)}.")
    without = [e.name for e in entries if e.calibration is None]
    lines.append(
        f"Scores of {', '.join(without)} are not calibrated: thresholds do not adapt to the tomogram."
        if without
        else "Scores are calibrated: thresholds fit the tomograms at hand, and picks have a probability."
    )
    changes = [e for e in entries if e.bfloat16_f4_change is not None]
    lines += [f"In bfloat16, F4 of {e.name} on phantoms changes by {e.bfloat16_f4_change:+.3f}." for e in changes]
    lines += [
        f"In int8, F4 of {e.name} on phantoms changes by {e.int8.f4_change:+.3f}."
        for e in entries
        if e.int8 is not None and e.int8.f4_change is not None
    ]
    return "\n".join(f"- {line}" for line in lines)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [[str(c).replace("|", r"\|").replace("\n", " ") for c in row] for row in (heads, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], f"|{'---|' * len(heads)}", *lines[1:]])


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
