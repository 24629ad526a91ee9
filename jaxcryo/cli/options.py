"""Options that several commands have, as records to be nested in theirs; each is shown as its own set in help."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Annotated, Literal

from jaxcryo.cli.command import Switch, shown

Particles = Annotated[str | None, shown("FILE", default="the copick project's, else the challenge's")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputOptions:
    """Which tomogram of a run is read, and how."""

    tomogram_type: Annotated[str, shown("NAME")] = "denoised"
    """reconstruction to use if a run has several"""
    voxel_spacing_folder: Annotated[str | None, shown("NAME")] = None
    """VoxelSpacing folder to use if a run has several, e.g. VoxelSpacing10.000"""
    voxel_spacing: Annotated[float | None, shown("ANGSTROM")] = None
    """voxel spacing of the full resolution in Å; overrides the header"""
    level: Annotated[int, shown("N")] = 0
    """OME-Zarr resolution level (0 = full)"""
    axes: Annotated[str | None, shown("ORDER")] = None
    """which file axes are x, y and z: xzy for untrimmed IMOD reconstructions; picks keep the file's order"""
    bytes: Literal["auto", "signed", "unsigned"] = "auto"
    """whether 8-bit MRC files (mode 0) are signed"""
    invert: Switch = False
    """invert contrast (multiply by -1)"""
    cache: Annotated[pathlib.Path | None, shown("DIR", default="nothing is kept")] = None
    """keep what is read from s3:// and https:// in this folder"""
    cache_gb: Annotated[float, shown("GB")] = 20.0
    """maximum size of that folder; what was read longest ago is deleted first"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TruthOptions:
    """Which picks of a copick project or of the CryoET Data Portal are ground truth."""

    picks_user: Annotated[str | None, shown("NAME", default="any but jaxcryo")] = None
    """copick user whose picks are ground truth"""
    picks_session: Annotated[str | None, shown("NAME", default="any")] = None
    """session of that user"""
    deposition: Annotated[int | None, shown("NUMBER", default="what is marked as ground truth")] = None
    """deposition on the portal whose annotations are ground truth"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeometryOptions:
    """What the coordinates of RELION's files refer to."""

    pixel_size: Annotated[float | None, shown("ANGSTROM")] = None
    """pixel size in Å of the unbinned tilt series (RELION)"""
    unbinned_size: Annotated[tuple[int, int, int] | None, shown("X Y Z")] = None
    """unbinned tomogram size in pixels (RELION 5)"""
    tomograms: Annotated[str | None, shown("STAR")] = None
    """RELION's tomograms.star, which has both"""
