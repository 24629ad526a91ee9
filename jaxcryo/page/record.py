"""What was run, as rows of text for people."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Mapping

Sections = Mapping[str, Mapping[str, str]]
"""Rows of labels and texts, below the titles of their sections."""

_PACKAGES = ("jaxcryo", "jax", "numpy", "openvino")


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
