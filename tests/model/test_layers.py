import pytest
import torch
from torch import nn

from ablations.model.layers import Linear, PatchConv2d

CASES = {  # B, in, H, W, patch size: maps that patches tile, one that they do not, one patch, patches of one pixel
    "tiled": (2, 3, 8, 8, 4),
    "remainder": (2, 5, 7, 9, 2),
    "one": (1, 4, 8, 8, 8),
    "pixels": (3, 6, 5, 4, 1),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_patches_give_the_convolutions_map_and_gradients(case) -> None:
    batch, channels, height, width, size = case
    own = PatchConv2d(channels, 7, size).double()
    convolution = nn.Conv2d(channels, 7, size, size).double()
    convolution.load_state_dict(own.state_dict())
    picture = torch.randn(batch, channels, height, width, dtype=torch.double)
    results = []
    for layer in (own, convolution):
        x = picture.clone().requires_grad_()
        output = layer(x)
        output.backward(torch.linspace(-1, 1, output.numel(), dtype=torch.double).view(output.shape))
        results.append((output, x.grad, layer.weight.grad, layer.bias.grad))
    torch.testing.assert_close(*results)
    with torch.no_grad():
        torch.testing.assert_close(own(picture), results[1][0])


def test_patches_have_second_derivatives() -> None:
    layer = PatchConv2d(2, 3, 2).double()
    x = torch.randn(1, 2, 4, 5, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
    assert torch.autograd.gradgradcheck(layer, (x,))


def test_a_map_without_gradient_gets_none() -> None:
    layer = PatchConv2d(2, 3, 2)
    pictures = torch.randn(1, 2, 4, 4)
    layer(pictures).sum().backward()
    assert pictures.grad is None
    assert layer.weight.grad.abs().sum() > 0


def test_patches_are_channels_last_and_keep_only_the_map() -> None:
    layer = PatchConv2d(4, 8, 2)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        x = torch.randn(2, 4, 6, 6, requires_grad=True)
        output = layer(x)
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert {tensor.data_ptr() for tensor in kept} == {x.data_ptr(), layer.weight.data_ptr()}


@pytest.mark.parametrize(("layer", "shape"), [(PatchConv2d(4, 8, 2), (2, 4, 6, 6)), (Linear(4, 8), (2, 6, 4))])
def test_mixed_precision_is_the_librarys(layer: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x)
        expected = type(layer).__base__.forward(layer, x)
    output.sum().backward()
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, expected)
    assert {parameter.grad.dtype for parameter in layer.parameters()} == {torch.float32}


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_gives_the_librarys_output_and_gradients(bias: bool) -> None:
    own = Linear(5, 3, bias=bias).double()
    library = nn.Linear(5, 3, bias=bias).double()
    library.load_state_dict(own.state_dict())
    tokens = torch.randn(2, 7, 5, dtype=torch.double)
    results = []
    for layer in (own, library):
        x = tokens.clone().requires_grad_()
        output = layer(x)
        output.square().sum().backward()
        results.append((output, x.grad, *(parameter.grad for parameter in layer.parameters())))
    torch.testing.assert_close(*results)
    assert len(results[0]) == (4 if bias else 3)
