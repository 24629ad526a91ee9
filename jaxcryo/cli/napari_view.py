"""Volume and picks in napari, where it is installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from jaxcryo.cli.geometry import say
from jaxcryo.domain import CENTER_OFFSET_VOXEL, LABEL_OFFSET_VOXEL, Picks, Volume
from jaxcryo.errors import InputError

View = Callable[[Iterable[tuple[Volume, Picks]]], None]
_SLICES_FOR_CONTRAST = 8


def napari_view() -> View:
    """A function that shows runs one after the other, each until its window is closed.

    Raises:
        InputError: napari is not installed.
    """
    try:
        napari = importlib.import_module("napari")
    except ImportError as error:
        raise InputError(
            f"napari cannot be used ({error}); install it with pip install 'jaxcryo[napari]', or leave out --view and "
            "open the page in reports/"
        ) from error

    def view(runs: Iterable[tuple[Volume, Picks]]) -> None:
        for volume, picks in runs:
            add_layers(napari.Viewer(title=volume.name), volume, picks)
            napari.run()

    return view


def add_layers(viewer: Any, volume: Volume, picks: Picks) -> None:
    """An image, and points of each type with the diameter of its particles, all scaled to ångströms.

    Points have the coordinates of the format `napari`, so that a saved layer can be read as picks. Where the tomogram's
    axes differ from theirs this cannot be, and a note says so.
    """
    grid = volume.grid
    spacing, translate = grid.spacing_zyx_angstrom, (0.0, 0.0, 0.0)
    if grid.axes == "xyz":
        x, y, z = grid.origin_xyz_angstrom
        places, translate = picks.xyz_angstrom[:, ::-1] / spacing, (z, y, x)
    else:
        places = grid.to_voxel(picks.xyz_angstrom) - (LABEL_OFFSET_VOXEL - CENTER_OFFSET_VOXEL)
        say(f"{volume.name}: its axes are {grid.axes}: edited points of it cannot be read back as picks")
    depth = volume.grid.shape_zyx[0]
    middle = max(depth // 2 - _SLICES_FOR_CONTRAST // 2, 0)
    low, high = np.nanpercentile(volume.read(middle, min(middle + _SLICES_FOR_CONTRAST, depth)), (0.3, 99.7))
    viewer.add_image(
        volume.voxels,
        name=volume.name,
        scale=spacing,
        translate=translate,
        colormap="gray",
        contrast_limits=(float(low), float(high if high > low else low + 1)),
    )
    score = np.full(len(picks), np.nan) if picks.score is None else picks.score
    for index, kind in enumerate(picks.types):
        mine = picks.type_index == index
        viewer.add_points(
            places[mine],
            name=kind.name,
            scale=spacing,
            size=2 * kind.radius_angstrom / volume.grid.spacing_angstrom,
            features={
                "particle": [kind.name] * int(mine.sum()),
                "run": [volume.name] * int(mine.sum()),
                "score": score[mine],
            },
            feature_defaults={"particle": kind.name, "run": volume.name, "score": np.nan},  # of points that are added
            face_color="transparent",
            border_color=[*(c / 255 for c in kind.color), 1.0],
            border_width=0.06,
            # A particle shows on all the slices that cut it.
            out_of_slice_display=True,
            ndim=3,
        )
