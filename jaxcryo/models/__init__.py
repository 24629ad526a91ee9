"""The two networks, and how a network becomes a pure function of plain trees."""

from jaxcryo.models.network import Network, Weights, build

__all__ = ["Network", "Weights", "build"]
