"""Backbones that PVT v2 is compared with and that no library keeps, written from their papers."""
