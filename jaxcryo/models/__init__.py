"""The networks: a registry of them, and how one becomes a pure function of plain trees."""

from jaxcryo.models.architecture import Architecture
from jaxcryo.models.network import Network, Weights, build
from jaxcryo.models.registry import architecture, architectures, register

__all__ = ["Architecture", "Network", "Weights", "architecture", "architectures", "build", "register"]
