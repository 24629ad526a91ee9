"""Find proteins in cryo-electron tomograms.

In a notebook:

    import jaxcryo

    volume = jaxcryo.Volume.open("TS_5_4.mrc")
    picks = jaxcryo.find(volume, "out/")
    print(picks.counts())
    jaxcryo.save(picks, "TS_5_4.csv")

Nothing heavy is imported before one of these names is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcryo.api import Models as Models
    from jaxcryo.api import find as find
    from jaxcryo.api import open_models as open_models
    from jaxcryo.api import save as save
    from jaxcryo.domain import ParticleType as ParticleType
    from jaxcryo.domain import Picks as Picks
    from jaxcryo.domain import Volume as Volume
    from jaxcryo.domain import VoxelGrid as VoxelGrid
    from jaxcryo.errors import InputError as InputError

__version__ = "0.1.0"

_HOME = {
    "Models": "jaxcryo.api",
    "InputError": "jaxcryo.errors",
    "ParticleType": "jaxcryo.domain",
    "Picks": "jaxcryo.domain",
    "Volume": "jaxcryo.domain",
    "VoxelGrid": "jaxcryo.domain",
    "find": "jaxcryo.api",
    "open_models": "jaxcryo.api",
    "save": "jaxcryo.api",
}

__all__ = ["InputError", "Models", "ParticleType", "Picks", "Volume", "VoxelGrid", "find", "open_models", "save"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'jaxcryo' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
