"""Honest architecture ablations of the Pyramid Vision Transformer, v1 to v2."""
