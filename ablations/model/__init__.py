"""The configurable PVT."""

from ablations.model.pvt import PVT, build_model

__all__ = ["PVT", "build_model"]
