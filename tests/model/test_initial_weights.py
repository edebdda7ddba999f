"""Initial weights: as the released code distributes them, and drawn by seed, name and shape alone."""

import hashlib
import math
import subprocess
import sys
from itertools import product
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from ablations.config import ARMS, BASES, build_config
from ablations.model import PVT, build_model
from ablations.model.initial_weights import draw_initial_weights

ALL = list(product(ARMS, BASES))


def modules_of(model: nn.Module, kind: type) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, kind)]


def hash_of(model: nn.Module) -> str:
    values = b"".join(
        name.encode() + value.detach().numpy().tobytes() for name, value in sorted(model.named_parameters())
    )
    return hashlib.sha256(values).hexdigest()


@pytest.mark.parametrize("arm", ["v1", "v1+ope+cffn+lsra"])
@pytest.mark.parametrize("base", ["v1", "v2"])
def test_distributions_are_those_of_the_released_code(arm: str, base: str) -> None:
    model = build_model(build_config("b0", arm, base, depths=(1, 1, 1, 1)), seed=0)
    for linear in modules_of(model, nn.Linear):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert not linear.bias.any()
    for norm in modules_of(model, nn.LayerNorm):
        assert (norm.weight == 1).all()
        assert not norm.bias.any()
    for convolution in modules_of(model, nn.Conv2d):
        weight, fan_in = convolution.weight, convolution.weight[0].numel()
        # Five standard errors of a sample's standard deviation.
        tolerance = 5 / math.sqrt(2 * weight.numel())
        if base == "v2":
            fan_out = fan_in * convolution.out_channels // convolution.in_channels
            assert weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=tolerance)
            # A uniform distribution ends at 1.7 standard deviations; of these many normal numbers some go beyond 2.
            assert weight.abs().max() > 2 * math.sqrt(2 / fan_out)
            assert not convolution.bias.any()
        else:
            # The framework's: uniform within 1 / sqrt(fan_in), the bias too.
            bound = 1 / math.sqrt(fan_in)
            assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=tolerance)
            assert weight.abs().max() <= bound
            assert convolution.bias.any()
            assert convolution.bias.abs().max() <= bound
    embeddings = [value for name, value in model.named_parameters() if "_token." in name or "pos_embed." in name]
    assert len(embeddings) == (5 if base == "v1" else 0)
    for embedding in embeddings:
        assert embedding.std().item() == pytest.approx(0.02, rel=0.25)


def test_shapes_of_the_distributions_pass_a_kolmogorov_smirnov_test() -> None:
    for base, expected in (("v1", stats.uniform(-1 / math.sqrt(64), 2 / math.sqrt(64))), ("v2", None)):
        model = build_model(build_config("b0", "v1+lsra", base, embed_dims=(64, 64, 160, 256)), seed=3)
        reduction, linear = model.stages[0].blocks[0].attn.sr, model.stages[0].blocks[0].mlp.fc1
        expected = expected or stats.norm(0, math.sqrt(2 / 64))  # a 1 x 1 convolution of 64 channels to 64
        assert stats.kstest(reduction.weight.detach().flatten().numpy(), expected.cdf).pvalue > 0.001
        assert stats.kstest(linear.weight.detach().flatten().numpy(), stats.norm(0, 0.02).cdf).pvalue > 0.001


def parameters_of(arm: str, base: str, seed: int = 5) -> dict[str, Tensor]:
    return dict(build_model(build_config("pico", arm, base), seed=seed).named_parameters())


@pytest.mark.parametrize("seed", [0, 5])
def test_equal_parameters_start_equal_in_all_arms_and_bases(seed: int) -> None:
    """Equal in name, shape and distribution: only convolutions have distributions that arms and bases differ in."""
    first_of: dict[tuple[str, torch.Size, tuple[str, torch.Size] | None], Tensor] = {}
    shared = 0
    for arm, base in ALL:
        model = build_model(build_config("pico", arm, base), seed=seed)
        for name, parameter in model.named_parameters():
            module = model.get_submodule(name.rpartition(".")[0])
            # The kernel decides how wide the bias's distribution is, too.
            how = (model.config.conv_init, module.weight.shape) if isinstance(module, nn.Conv2d) else None
            key = (name, parameter.shape, how)
            if key in first_of:
                assert torch.equal(parameter, first_of[key]), (arm, base, name)
                shared += 1
            first_of.setdefault(key, parameter)
    assert shared > 1000


def test_different_names_shapes_and_seeds_start_differently() -> None:
    weights = parameters_of("v1+ope+cffn", "v2")
    drawn = [value for value in weights.values() if value.std() > 0 and value.dim() > 1]
    starts = {tuple((value.flatten()[:4] / value.std()).tolist()) for value in drawn}
    assert len(starts) == len(drawn)
    other = parameters_of("v1+ope+cffn", "v2", seed=6)
    assert not any(torch.equal(value, other[name]) for name, value in weights.items() if value.std() > 0)
    # An overlapping patch embedding has another kernel: its values are no cut of the plain one's.
    overlapping, tiling = (parameters_of(arm, "v2")["stages.1.patch_embed.proj.weight"] for arm in ("v1+ope", "v1"))
    assert not torch.isin(tiling.flatten(), overlapping.flatten()).any()


def test_seeds_give_uncorrelated_weights() -> None:
    """The correlation of 4,096 pairs of independent values has a standard deviation of 1/64."""
    name = "stages.3.blocks.0.attn.q.weight"
    values = torch.stack([parameters_of("v1", "v2", seed)[name].flatten() for seed in range(6)])
    off_diagonal = torch.corrcoef(values)[~torch.eye(6, dtype=torch.bool)]
    assert off_diagonal.abs().max() < 5 / 64


@pytest.mark.slow
def test_another_process_draws_the_same() -> None:
    script = (
        "import hashlib; from ablations.config import build_config; from ablations.model import build_model\n"
        "model = build_model(build_config('pico', 'v1+ope', 'v1'), seed=11)\n"
        "values = b''.join(n.encode() + v.detach().numpy().tobytes() for n, v in sorted(model.named_parameters()))\n"
        "print(hashlib.sha256(values).hexdigest())"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.strip() == hash_of(build_model(build_config("pico", "v1+ope", "v1"), seed=11))


PINNED = {
    ("v1", "v1"): {
        "stages.0.patch_embed.proj.weight": (-0.1232551, -0.1498351, -0.0358787),
        "stages.0.patch_embed.proj.bias": (0.2420793, 0.2657272, -0.0703027),
        "stages.1.pos_embed.weight": (0.0302606, 0.0496833, -0.0098327),
        "stages.3.cls_token.weight": (0.0221875, -0.0107584, -0.0174323),
        "head.weight": (0.0023815, -0.0023192, 0.0025536),
    },
    ("v1+ope+cffn+lsra", "v2"): {
        "stages.2.blocks.0.mlp.dwconv.weight": (-0.8128431, 0.5818762, -0.1860412),
        "stages.3.blocks.0.attn.q.weight": (0.0261126, 0.0424553, 0.0035466),
    },
}


@pytest.mark.parametrize(("arm", "base"), PINNED)
def test_values_stay(arm: str, base: str) -> None:
    """Records of one seed are paired whichever version of this code made them, so its draws never change."""
    weights = parameters_of(arm, base, seed=0)
    first = {name: weights[name].flatten()[:3].tolist() for name in PINNED[arm, base]}
    assert first == {name: pytest.approx(values, abs=1e-6) for name, values in PINNED[arm, base].items()}


def test_nothing_but_the_seed_decides() -> None:
    """Not the device context, torch's generator, or what was built before."""
    config = build_config("pico", "v1+ope+cffn", "v1")
    expected = hash_of(build_model(config, seed=2))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    with torch.device("cpu"):
        assert hash_of(build_model(config, seed=2)) == expected
    build_model(build_config("nano"), seed=3)
    assert hash_of(build_model(config, seed=2)) == expected
    assert not torch.equal(torch.get_rng_state(), state)  # torch's own initial values, which are drawn over

    with torch.device("meta"):
        model = build_model(config, seed=2)
    assert all(parameter.is_meta for parameter in model.parameters())
    model = model.to_empty(device="cpu")
    draw_initial_weights(model, 2, config.conv_init)
    assert hash_of(model) == expected


def test_the_order_of_modules_does_not_decide() -> None:
    config = build_config("pico", "v1+cffn", "v2")
    model = build_model(config, seed=1)
    expected = hash_of(model)
    head = model._modules.pop("head")
    model._modules = {"head": head, **dict(reversed(model._modules.items()))}
    draw_initial_weights(model, 1, config.conv_init)
    assert hash_of(model) == expected


def build(seed: int | None = None) -> PVT:
    return build_model(build_config("pico", "v1", "v1"), seed=seed)


def test_without_a_seed_torchs_generator_draws_one() -> None:
    torch.manual_seed(7)
    first, second = hash_of(build()), hash_of(build())
    torch.manual_seed(7)
    assert hash_of(build()) == first
    assert hash_of(build()) == second
    assert first != second
    torch.manual_seed(8)
    assert hash_of(build()) != first
