"""Initial weights: each parameter is drawn by the seed, its own name and its shape, and by nothing else.

So two models with one seed start from the same values wherever a parameter has the same name, shape and distribution,
whatever else they have and in whichever order they are built. Arms can then be compared in pairs. Records call this
`ablations.config.BY_NAME`.
"""

import hashlib
import math

import torch
from torch import Tensor, nn


def generator_of(seed: int, name: str, shape: torch.Size) -> torch.Generator:
    """Returns the generator of one parameter, on the CPU."""
    text = f"{seed} {name} {tuple(shape)}"
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1)


@torch.no_grad()
def draw_initial_weights(model: nn.Module, seed: int | None, conv_init: str) -> None:
    """Draws the weights of a PVT anew, on the CPU whatever its device; models without storage stay without values.

    Without a seed, torch's own generator draws one.

    Linear layers, class tokens and position embeddings are normal with standard deviation 0.02, biases zero, norms one
    and zero, as in the released code. (It cuts the normal distribution off at 100 standard deviations, which changes
    nothing.) Convolutions are as `conv_init` of PVTConfig says; `default` is uniform within ±1/√fan_in, biases too.
    Other modules draw their own, from a generator of the seed and their name; one without `reset_parameters` keeps
    what it was built with.
    """
    if not all(map(_has_storage, model.parameters())):
        return
    if seed is None:
        seed = int(torch.empty((), dtype=torch.int64, device="cpu").random_())
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) or path.rpartition(".")[2] in EMBEDDINGS:
            for name, parameter in module.named_parameters(path, recurse=False):
                _draw(module, name, parameter, generator_of(seed, name, parameter.shape), conv_init)
        elif callable(getattr(module, "reset_parameters", None)):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(generator_of(seed, path, torch.Size()).initial_seed())
                module.reset_parameters()


EMBEDDINGS = ("cls_token", "pos_embed")
"""Modules, by the last word of their names, whose weight is an embedding."""


def _has_storage(parameter: Tensor) -> bool:
    return type(parameter.data) is Tensor and not parameter.is_meta


def _draw(module: nn.Module, name: str, parameter: Tensor, generator: torch.Generator, conv_init: str) -> None:
    values = torch.empty(parameter.shape, device="cpu")
    if isinstance(module, nn.Conv2d) and conv_init == "default":
        bound = 1 / math.sqrt(module.in_channels // module.groups * math.prod(module.kernel_size))
        values.uniform_(-bound, bound, generator=generator)
    elif name.endswith(".bias"):
        values.zero_()
    elif isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        values.normal_(std=math.sqrt(2 / fan_out), generator=generator)
    else:
        values.normal_(std=0.02, generator=generator)
    parameter.copy_(values)
