"""LocalViT: has the published size, and keeps its class token out of the convolutions."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ablations.baselines.local_vit import LocalViT, localvit_s, localvit_t
from ablations.measure.macs import trace_macs

EVERY_MODEL = pytest.mark.parametrize(("build", "dim"), [(localvit_t, 192), (localvit_s, 384)])

# The paper's comparison on ImageNet: parameters in M, MACs in G. (The released code's page reports 5.7 M for T,
# which is DeiT-T's.)
PUBLISHED = {"localvit_t": (5.9, 1.3), "localvit_s": (22.4, 4.6)}

Build = Callable[..., LocalViT]
Photographs = Callable[..., Tensor]


def on_meta(build: Build) -> LocalViT:
    with torch.device("meta"):
        return build()


@EVERY_MODEL
def test_parameters_are_the_published(build: Build, dim: int) -> None:
    count = sum(parameter.numel() for parameter in on_meta(build).parameters())
    attention = 2 * dim + 3 * dim**2 + 3 * dim + dim**2 + dim
    hidden = 4 * dim
    convolutions = 2 * dim * hidden + 9 * hidden  # without biases
    batch_norms = 2 * (hidden + hidden + dim)
    squeeze = hidden * 4 + 4 + 4 * hidden + hidden
    block = attention + convolutions + batch_norms + squeeze
    patch_embed, position_embedding = 16 * 16 * 3 * dim + dim, 197 * dim
    assert count == patch_embed + dim + position_embedding + 12 * block + 2 * dim + 1000 * dim + 1000
    assert round(count / 1e6, 1) == PUBLISHED[build.__name__][0]


@EVERY_MODEL
def test_macs_are_the_published(build: Build, dim: int) -> None:
    traced = trace_macs(on_meta(build), (1, 3, 224, 224)).total
    attention = 197 * 4 * dim**2 + 2 * 197**2 * dim
    hidden = 4 * dim
    feed_forward = 196 * (2 * dim * hidden + 9 * hidden) + 2 * 4 * hidden  # 196: the class token is not in it
    assert traced == 196 * 16 * 16 * 3 * dim + 12 * (attention + feed_forward) + 1000 * dim
    assert round(traced / 1e9, 1) == PUBLISHED[build.__name__][1]


def test_the_class_token_does_not_enter_the_convolutions() -> None:
    torch.manual_seed(0)
    block, size = localvit_t(num_classes=5).eval().blocks[0], (6, 4)
    tokens = torch.randn(2, 1 + 24, 192)
    with torch.no_grad():
        attended = tokens + block.attn(block.norm1(tokens))
        output = block(tokens, size)
        feature_map = attended[:, 1:].transpose(1, 2).unflatten(2, size)
        expected = feature_map + block.mlp.convs(feature_map)
    assert torch.equal(output[:, 0], attended[:, 0])
    torch.testing.assert_close(output[:, 1:], expected.flatten(2).transpose(1, 2))
    assert not torch.allclose(output[:, 1:], attended[:, 1:])


def test_the_feed_forward_is_local_but_for_the_squeeze() -> None:
    torch.manual_seed(0)
    convs = localvit_t(num_classes=5).double().eval().blocks[0].mlp.convs
    one = torch.randn(1, 192, 9, 9, dtype=torch.float64)
    other = one.clone()
    other[:, :, 4, 4] += 1
    with torch.no_grad():
        changed = (convs(one) - convs(other)).abs().amax(dim=(0, 1))
        squeezeless = nn.Sequential(convs[0], convs[1], convs[3])
        changed_nearby = (squeezeless(one) - squeezeless(other)).abs().amax(dim=(0, 1))
    assert (changed > 0).all()
    nearby = torch.zeros(9, 9, dtype=torch.bool)
    nearby[3:6, 3:6] = True
    assert torch.equal(changed_nearby > 0, nearby)


def test_position_embedding_is_resized_to_the_map(photographs: Photographs) -> None:
    torch.manual_seed(0)
    model = localvit_t(num_classes=2).eval()
    images = photographs(160, 96)
    with torch.no_grad():
        without = model(images)
        nn.init.normal_(model.position_embedding.weight)
        assert not torch.allclose(model(images), without)
        assert model(photographs(100, 75)).isfinite().all()
