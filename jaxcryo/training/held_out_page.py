"""The page of the held-out run, rewritten at each validation."""

from __future__ import annotations

import dataclasses
import functools

import jax

from jaxcryo.calling import command
from jaxcryo.domain import Picks, Volume
from jaxcryo.page import Overlay, Page, SliceImages, slice_images, versions, write_page
from jaxcryo.serialize import to_plain
from jaxcryo.training.run_folder import RunDescription, RunFolder
from jaxcryo.training.validation import THRESHOLDS, Validation

_COMMAND = "infer --engines out/ --data DATA --out picks/ --thresholds thresholds.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOutPage:
    """What the pages of one training have in common."""

    folder: RunFolder
    description: RunDescription
    volume: Volume
    truth: Picks

    def overlay(self) -> Overlay:
        """Collects heatmaps during a validation."""
        return Overlay(self.volume.grid.shape_zyx, len(self.description.types), floor=float(THRESHOLDS[0]))

    def write(self, step: int, result: Validation, overlay: Overlay, *, seconds: float) -> None:
        """Replaces the page with that of a validation."""
        config = self.description.config
        page = Page(
            run=self.volume.name,
            grid=self.volume.grid,
            types=result.types,
            slices=self._slices,
            overlay=overlay.images(),
            picks=result.picks,
            floor=float(THRESHOLDS[0]),
            truth=self.truth,
            record={
                "Validation": {
                    "training": f"{config.arch}, {config.size}, fold {self.description.fold} in {self.folder}",
                    "step": str(step),
                    "trained on": ", ".join(self.description.train_runs),
                    "held out": self.description.held_out,
                    "device": f"{jax.device_count()} {jax.default_backend()}",
                    "time": f"{seconds:.1f} s for the validation",
                }
                | versions(),
                **{
                    title: {k.replace("_", " "): str(v) for k, v in to_plain(part).items()}
                    for title, part in (
                        ("Target", config.target),
                        ("Training", config.optim),
                        ("Augmentation", config.augment),
                        ("Inference", config.inference),
                    )
                },
            },
            commands=(("The networks of this training, converted to out/, with these thresholds:", command(_COMMAND)),),
        )
        write_page(self.folder.report, page)

    @functools.cached_property
    def _slices(self) -> SliceImages:
        """Drawn only once: every validation shows the same tomogram."""
        return slice_images(self.volume)
