"""The functions for programs and notebooks, available as `jaxcryo.…`."""

from __future__ import annotations

import dataclasses
import pathlib
import warnings

from jaxcryo.calibration import mean_calibration
from jaxcryo.domain import ParticleType, Picks, Volume
from jaxcryo.errors import InputError
from jaxcryo.picking.aim import Aim
from jaxcryo.picking.pipeline import find_picks
from jaxcryo.picking.preprocess import fit_volume
from jaxcryo.picking.stitch import OnWindows
from jaxcryo.picking.surroundings import with_surroundings
from jaxcryo.picking.thresholds import decide
from jaxcryo.picks.candidates import floor_of
from jaxcryo.picks.formats import Geometries, TomogramGeometry, format_for, write_picks
from jaxcryo.project.mask import open_mask
from jaxcryo.runtime.backends import choose_backend, ensemble_types, open_model
from jaxcryo.runtime.hub import models_folder
from jaxcryo.runtime.manifest import ModelEntry, read_manifest
from jaxcryo.runtime.opened import OpenModel
from jaxcryo.tomogram.normalization import scaled


@dataclasses.dataclass(frozen=True, kw_only=True)
class Models:
    """The opened networks of a folder, whose heatmaps are averaged; `open_models` returns them."""

    entries: tuple[ModelEntry, ...]
    models: tuple[OpenModel, ...]
    types: tuple[ParticleType, ...]
    """With the thresholds that picks have to exceed."""


def open_models(folder: str | pathlib.Path, *, backend: str = "auto") -> Models:
    """Opens the models that `python -m convert onnx` wrote to a folder, or `hf://user/name[@revision]` on the
    Hugging Face hub, to use them for several tomograms.

    Raises:
        InputError: there are no models, or they cannot be used on this machine.
    """
    folder = models_folder(folder)
    entries = read_manifest(folder)
    runner, _ = choose_backend(backend, folder, entries)
    models = tuple(open_model(folder, entry, runner) for entry in entries)
    return Models(entries=entries, models=models, types=ensemble_types(entries))


def find(
    volume: Volume,
    engines: str | pathlib.Path | Models,
    *,
    mask: str | pathlib.Path | Volume | None = None,
    invert: bool = False,
    floor: float | None = None,
    aim: Aim = "recall",
    on_windows: OnWindows | None = None,
) -> Picks:
    """The particles of a tomogram: positions in ångströms from its corner, by type and then by falling score.

    A volume with another voxel spacing than the models' is resampled; a warning tells of each change to it. `engines`
    is a folder, a name on the hub, or the result of `open_models`. There are picks only where `mask` is above 0.
    `invert` inverts the contrast. `floor` replaces all thresholds, so that you can select by score afterwards. With
    calibrated models, thresholds are chosen for the `aim` and this tomogram, and picks have a probability; other models
    use their own thresholds. `on_windows` is called with the numbers of finished and of all windows.

        picks = jaxcryo.find(jaxcryo.Volume.open("TS_5_4.mrc"), "out/")
        picks.of("ribosome")  # x, y, z

    Raises:
        InputError: the models, the mask or the volume cannot be used.
    """
    opened = engines if isinstance(engines, Models) else open_models(engines)
    if mask is not None and not isinstance(mask, Volume):
        mask = open_mask(mask, volume.name, volume.grid)

    def note(sentence: str) -> None:
        warnings.warn(sentence, stacklevel=3)

    fitted = fit_volume(scaled(volume, gain=-1.0) if invert else volume, opened.entries, note=note)
    calibration = mean_calibration([e.calibration for e in opened.entries])
    decides = calibration is not None and floor is None
    found = find_picks(
        fitted,
        opened.models,
        opened.types,
        config=opened.entries[0].inference,
        floor=floor_of(opened.types) if decides else floor,
        on_windows=on_windows,
        mask=mask,
    )
    found = with_surroundings(found, fitted.grid, mask)
    return decide([found], opened.types, calibration, aim=aim).select(found) if decides else found


def save(
    picks: Picks,
    path: str | pathlib.Path,
    *,
    format: str | None = None,
    volume: Volume | None = None,
    pixel_size_angstrom: float | None = None,
    unbinned_size_xyz: tuple[int, int, int] | None = None,
    force: bool = False,
) -> list[pathlib.Path]:
    """Writes picks in one of the formats of docs/formats.md, and returns the files.

    Without `format`, a `.csv` becomes a plain table and a `.tbl` a Dynamo table. `volume` provides the voxel spacing
    for the formats of Dynamo and napari; the other two options are for RELION.

    Raises:
        InputError: files exist and `force` is not given, the format is not clear, or it needs more information.
    """
    plain = format is None and pathlib.Path(path).suffix.lower() == ".csv"
    chosen = format_for(path, "csv" if plain else format)
    spacing = None
    if volume is not None:
        z, y, x = volume.grid.spacing_zyx_angstrom
        spacing = (x, y, z)
    frame = TomogramGeometry(
        pixel_size_angstrom=pixel_size_angstrom,
        unbinned_size_xyz=unbinned_size_xyz,
        voxel_spacing_xyz_angstrom=spacing,
    )
    return write_picks({picks.run: picks}, path, chosen, Geometries(default=frame), force=force)


__all__ = ["InputError", "Models", "find", "open_models", "save"]
