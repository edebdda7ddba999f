"""Fixtures for tests of the model."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Runs these small tensors on one thread: where cores are shared, more threads take up to fifty times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _randomise(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(generator=generator)
            if parameter.dim() == 1:
                parameter.mul_(0.2)
                if name.endswith("weight"):
                    parameter.add_(1.0)
            elif name.endswith("weight"):
                parameter.div_(parameter[0].numel() ** 0.5)
    return model.eval()


@pytest.fixture
def randomise() -> Callable[[nn.Module], nn.Module]:
    """Gives a model weights of which none is 0 or 1, as fresh norms, biases and tokens are, and evaluation mode.

    Activations stay of the order of 1.
    """
    return _randomise
