"""Synthetic tomograms with known particles, to develop and test pickers on."""

from jaxcryo.phantom.dataset import PhantomConfig, make_phantom, write_dataset
from jaxcryo.phantom.drawing import Phantom, draw_phantom
from jaxcryo.phantom.imaging import Imaging, Optics
from jaxcryo.phantom.settings import DrawConfig

__all__ = [
    "DrawConfig",
    "Imaging",
    "Optics",
    "Phantom",
    "PhantomConfig",
    "draw_phantom",
    "make_phantom",
    "write_dataset",
]
