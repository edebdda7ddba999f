"""The models that no library has: what holds for each of them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ablations.baselines.cpvt import cpvt_s, cpvt_ti
from ablations.baselines.local_vit import localvit_s, localvit_t
from ablations.baselines.t2t_vit import t2t_vit_t_14, t2t_vit_t_19, t2t_vit_t_24
from ablations.errors import InputError

Build = Callable[..., nn.Module]
Photographs = Callable[..., Tensor]

SMALLEST_OF_EACH = pytest.mark.parametrize("build", [cpvt_ti, localvit_t, t2t_vit_t_14])


@pytest.mark.parametrize(
    "build",
    [
        *(cpvt_ti, localvit_t, t2t_vit_t_14),
        *(pytest.param(build, marks=pytest.mark.slow) for build in (cpvt_s, localvit_s, t2t_vit_t_19, t2t_vit_t_24)),
    ],
)
def test_classifies_real_images(build: Build, photographs: Photographs) -> None:
    torch.manual_seed(0)
    model = build(num_classes=7).eval()
    with torch.no_grad():
        logits = model(photographs())
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    assert not torch.equal(logits[0], logits[1])


@SMALLEST_OF_EACH
@pytest.mark.parametrize("size", [(16, 16), (160, 96), (100, 75)])
def test_takes_other_sizes(build: Build, size: tuple[int, int], photographs: Photographs) -> None:
    with torch.no_grad():
        assert build(num_classes=2)(photographs(*size)).isfinite().all()


@SMALLEST_OF_EACH
def test_runs_on_fake_tensors(build: Build) -> None:
    with FakeTensorMode():
        assert build()(torch.empty(2, 3, 224, 224)).shape == (2, 1000)


@SMALLEST_OF_EACH
@pytest.mark.parametrize("shape", [(1, 3, 15, 224), (1, 1, 224, 224), (3, 224, 224)])
def test_refuses_what_is_no_image(build: Build, shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        model = build()
    with pytest.raises(InputError, match="input shape"):
        model(torch.empty(shape, device="meta"))
