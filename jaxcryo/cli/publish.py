"""`jaxcryo publish`: models to the Hugging Face hub, where `--engines hf://user/name` finds them."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Annotated

from tyro.conf import Positional

from jaxcryo.cli.command import Command, Switch, shown


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishOptions:
    """Publish models with a card that says what they are.

    The card, engines.json, the ONNX files and the weights are published, nothing else of the folder.
    """

    engines: Annotated[Positional[pathlib.Path], shown("MODELS")]
    """folder of models, written by convert onnx"""
    name: Annotated[Positional[str], shown("hf://USER/NAME")]
    """repository to publish to; created if it does not exist"""
    license: Annotated[str, shown("NAME")]
    """license of the weights, by the hub's name, e.g. mit or cc-by-4.0"""
    notes: Annotated[pathlib.Path | None, shown("FILE.md")] = None
    """Markdown for the card: which tomograms the models were trained on, and what else users should know"""
    scores: Annotated[tuple[pathlib.Path, ...], shown("JSON ...")] = ()
    """scores for the card, as printed by score --json; each is named after its file"""
    dry_run: Annotated[pathlib.Path | None, shown("DIR")] = None
    """write the files to this folder instead of publishing them"""
    private: Switch = False
    """make a newly created repository private"""
    force: Switch = False
    """replace the folder of --dry-run"""


PUBLISH = Command(
    name="publish",
    summary="publish models on the Hugging Face hub",
    options=PublishOptions,
    action="jaxcryo.cli.publish:publish",
    examples={
        "publish out/ hf://user/name --license mit --dry-run published/": "look at the card first",
        "publish out/ hf://user/name --license mit --notes notes.md --scores TS_5_4.json": (
            "with your own words and the scores of 'score --json'; sign in first with 'hf auth login'"
        ),
    },
)
main = PUBLISH.main


def publish(options: PublishOptions) -> None:
    """Prints where the models are now."""
    from jaxcryo.calling import command
    from jaxcryo.runtime.card import Said, read_notes, read_scores
    from jaxcryo.runtime.publishing import publishable, upload, write_folder

    said = Said(license=options.license, scores=read_scores(options.scores), notes=read_notes(options.notes))
    models = publishable(options.engines, options.name, said)
    if options.dry_run is not None:
        write_folder(models, options.dry_run, force=options.force)
        print(f"wrote {options.dry_run}: {', '.join((*models.texts, *models.files))}")
        return
    print(f"published {upload(models, private=options.private)}")
    print(f"to use them: {command(f'infer --engines {models.name} --data DIR')}")
