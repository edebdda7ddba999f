"""T2T-ViT_t: has the published size, and is built as its paper says."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from ablations.baselines.t2t_vit import (
    TOKEN_DIM,
    T2TViT,
    TokenTransformer,
    sinusoids,
    t2t_vit_t_14,
    t2t_vit_t_19,
    t2t_vit_t_24,
)
from ablations.measure.macs import trace_macs

# The paper's Table 3: parameters in M, MACs in G. Depth and width are its Table 1's.
PUBLISHED = {"t2t_vit_t_14": (21.5, 6.1), "t2t_vit_t_19": (39.2, 9.8), "t2t_vit_t_24": (64.1, 15.0)}
EVERY_MODEL = pytest.mark.parametrize(
    ("build", "depth", "dim"), [(t2t_vit_t_14, 14, 384), (t2t_vit_t_19, 19, 448), (t2t_vit_t_24, 24, 512)]
)

Build = Callable[..., T2TViT]


def on_meta(build: Build) -> T2TViT:
    with torch.device("meta"):
        return build()


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@EVERY_MODEL
def test_parameters_are_the_published_less_the_fixed_embedding(build: Build, depth: int, dim: int) -> None:
    count = count_parameters(on_meta(build))

    def transformer(incoming: int) -> int:
        attention = 3 * incoming * TOKEN_DIM + TOKEN_DIM**2 + TOKEN_DIM  # queries, keys and values have no bias
        norms = 2 * incoming + 2 * TOKEN_DIM
        return norms + attention + 2 * (TOKEN_DIM**2 + TOKEN_DIM)

    tokens_to_token = transformer(3 * 49) + transformer(9 * TOKEN_DIM) + 9 * TOKEN_DIM * dim + dim
    block = 4 * dim + (3 * dim**2 + dim**2 + dim) + (2 * 3 * dim**2 + 3 * dim + dim)
    assert count == tokens_to_token + dim + depth * block + 2 * dim + 1000 * dim + 1000

    # The released code keeps the sinusoids as a parameter that is never trained, and the paper counts it. Without them
    # t-14 is still 21.5 M, but t-19 is 39.1 M and t-24 is 64.0 M.
    assert round((count + 197 * dim) / 1e6, 1) == PUBLISHED[build.__name__][0]
    assert round(count / 1e6, 2) == {14: 21.47, 19: 39.08, 24: 64.00}[depth]


@EVERY_MODEL
def test_macs_are_the_published(build: Build, depth: int, dim: int) -> None:
    traced = trace_macs(on_meta(build), (1, 3, 224, 224)).total

    def transformer(length: int, incoming: int) -> int:
        linear = 3 * incoming * TOKEN_DIM + TOKEN_DIM**2 + 2 * TOKEN_DIM**2
        return length * linear + 2 * length**2 * TOKEN_DIM

    tokens_to_token = transformer(56**2, 3 * 49) + transformer(28**2, 9 * TOKEN_DIM) + 14**2 * 9 * TOKEN_DIM * dim
    block = 197 * (4 + 2 * 3) * dim**2 + 2 * 197**2 * dim
    assert traced == tokens_to_token + depth * block + 1000 * dim
    assert round(traced / 1e9, 1) == PUBLISHED[build.__name__][1]


@pytest.mark.parametrize(
    ("size", "lengths"),
    [((224, 224), [56 * 56, 28 * 28, 14 * 14]), ((96, 160), [24 * 40, 12 * 20, 6 * 10])],
)
def test_each_soft_split_halves_the_map_again(size: tuple[int, int], lengths: list[int]) -> None:
    seen = []
    module = on_meta(t2t_vit_t_14).tokens_to_token
    for layer in (module.transformer1, module.transformer2, module.project):
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1:]))
    tokens = module(torch.empty(2, 3, *size, device="meta"))
    assert [tuple(shape) for shape in seen] == list(zip(lengths, [3 * 49, 9 * 64, 9 * 64], strict=True))
    assert tokens.shape == (2, lengths[-1], 384)


def test_a_token_is_a_window_of_the_image() -> None:
    torch.manual_seed(0)
    model, image, seen = t2t_vit_t_14(num_classes=2), torch.randn(1, 3, 64, 96), []
    model.tokens_to_token.transformer1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(image)
    row, column = 5, 9  # of the first split's 16 x 24 tokens; the windows' stride is 4, their padding 2
    window = image[0, :, 4 * row - 2 : 4 * row + 5, 4 * column - 2 : 4 * column + 5]
    assert torch.equal(seen[0][0, 24 * row + column], window.flatten())


def test_the_values_are_the_first_residual() -> None:
    torch.manual_seed(0)
    layer, tokens = TokenTransformer(147).double(), torch.randn(2, 10, 147, dtype=torch.float64)
    normed = nn.functional.layer_norm(tokens, (147,))  # fresh norms have weight 1 and bias 0
    q, k, v = (normed @ weight.T for weight in layer.qkv.weight.split(TOKEN_DIM))
    x = v + layer.proj((q @ k.transpose(1, 2) / math.sqrt(147)).softmax(dim=-1) @ v)
    expected = x + layer.mlp(nn.functional.layer_norm(x, (TOKEN_DIM,)))
    torch.testing.assert_close(layer(tokens), expected)


def test_position_embedding_is_the_sinusoids_of_its_grid() -> None:
    embedding = sinusoids(torch.empty(2, 1 + 20 * 16, 384))
    assert embedding.shape == (321, 384)
    for position, channel in ((0, 0), (0, 1), (7, 2), (200, 101), (320, 383)):
        angle = position / 10000 ** (channel // 2 * 2 / 384)
        expected = math.sin(angle) if channel % 2 == 0 else math.cos(angle)
        assert embedding[position, channel].item() == pytest.approx(expected, abs=1e-4)
