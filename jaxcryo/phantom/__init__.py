"""Synthetic tomograms with known particles, to develop and test pickers on."""

from jaxcryo.phantom.dataset import PhantomConfig, make_phantom, write_dataset
from jaxcryo.phantom.imaging import Imaging, Optics

__all__ = ["Imaging", "Optics", "PhantomConfig", "make_phantom", "write_dataset"]
