"""Fixtures for tests of the baselines."""

from collections.abc import Callable

import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor, nn


@pytest.fixture(scope="session")
def photographs() -> Callable[..., Tensor]:
    """Gives two real images (2, 3, height, width), 224 pixels a side where nothing else is asked for."""
    images = torch.stack([torch.tensor(image) for image in load_sample_images().images])

    def resize(height: int = 224, width: int = 224) -> Tensor:
        return nn.functional.interpolate(images.permute(0, 3, 1, 2) / 127.5 - 1, (height, width), mode="bilinear")

    return resize
