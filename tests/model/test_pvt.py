"""The model: any input, every arm and base, against a second way of writing it; and what runs it."""

import math
from collections import Counter
from collections.abc import Callable
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ablations.config import ARMS, PVTConfig, Size, as_pair, build_config
from ablations.errors import InputError
from ablations.model import PVT, build_model
from ablations.model.pvt import PositionEmbedding, build_block

EVERY_ARM_IN_BOTH_BASES = pytest.mark.parametrize(("arm", "base"), list(product(ARMS, ("v1", "v2"))))
EVERY_MODEL = pytest.mark.parametrize(
    ("arm", "base"),
    [
        *product(ARMS, ("v2",)),
        *((ARMS[0], "v1"), (ARMS[-1], "v1")),
        *(pytest.param(arm, "v1", marks=pytest.mark.slow) for arm in ARMS[1:-1]),
        # Those of base `published` that are in neither of the other bases: the two with a ReLU.
        *(("v1+cffn+lsra", "published"), ("v1+ope+cffn+lsra", "published")),
    ],
)

Randomise = Callable[[nn.Module], nn.Module]


def images(height: int, width: int, batch_size: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch_size, 3, height, width, generator=generator).to(dtype)


# A second way of writing the model: plain functions of a state dict, maps as NCHW, heads and pooled cells in loops.


def bilinear(length: int, new_length: int) -> Tensor:
    """The matrix (new_length, length) that interpolates linearly between the centres of `length` cells."""
    matrix = torch.zeros(new_length, length, dtype=torch.float64)
    for new in range(new_length):
        position = min(max((new + 0.5) * length / new_length - 0.5, 0.0), length - 1.0)
        left = int(position)
        right = min(left + 1, length - 1)
        matrix[new, left] += left + 1 - position
        matrix[new, right] += position - left
    return matrix


def grid_of(config: PVTConfig, stage: int) -> tuple[int, int]:
    """The map of a stage for an input of `img_size`: what a convolution's output size is by definition."""
    height, width = as_pair(config.img_size)
    for stride in (config.stem_stride, 2, 2, 2)[: stage + 1]:
        kernel, padding = (2 * stride - 1, stride - 1) if "ope" in config.toggles else (stride, 0)
        height, width = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
    return height, width


def expected_positions(weight: Tensor, grid: tuple[int, int], size: tuple[int, int], prefix: int) -> Tensor:
    """A position embedding (1, prefix + N, C) of `grid`, for a map of `size`."""
    on_grid = weight[0, prefix:].unflatten(0, grid).double()
    on_map = torch.einsum("ah,bw,hwc->abc", bilinear(grid[0], size[0]), bilinear(grid[1], size[1]), on_grid)
    return torch.cat([weight[0, :prefix].double(), on_map.flatten(0, 1)])[None]


class Reference:
    """The model of a config by the definitions of DESIGN and the papers; `logits` and `maps` as PVT gives them."""

    def __init__(self, config: PVTConfig, weights: dict[str, Tensor]) -> None:
        self.config = config
        self.weights = weights

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def convolve(self, x: Tensor, name: str, **arguments: int) -> Tensor:
        return F.conv2d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], **arguments)

    def norm(self, x: Tensor, name: str, eps: float) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + eps).sqrt()
        return centred / scale * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def pool(self, x: Tensor) -> Tensor:
        side = self.config.pool_size
        cells = [
            x[:, :, slice(*self.cell(row, x.shape[2])), slice(*self.cell(column, x.shape[3]))].mean((2, 3))
            for row in range(side)
            for column in range(side)
        ]
        return torch.stack(cells, dim=2).unflatten(2, (side, side))

    def cell(self, index: int, length: int) -> tuple[int, int]:
        side = self.config.pool_size
        return math.floor(index * length / side), math.ceil((index + 1) * length / side)

    def attention(self, x: Tensor, size: tuple[int, int], stage: int, name: str) -> Tensor:
        config = self.config
        prefix, feature_map = self.apart(x, size)
        sr_ratio = config.sr_ratios[stage]
        if "lsra" in config.toggles:
            reduced = self.convolve(self.pool(feature_map), f"{name}.sr")
            reduced = F.gelu(self.norm(reduced.flatten(2).permute(0, 2, 1), f"{name}.norm", 1e-5))
        elif sr_ratio > 1:
            reduced = self.convolve(feature_map, f"{name}.sr", stride=sr_ratio)
            reduced = self.norm(reduced.flatten(2).permute(0, 2, 1), f"{name}.norm", 1e-5)
        else:
            reduced = feature_map.flatten(2).permute(0, 2, 1)
        q, kv = self.linear(x, f"{name}.q"), self.linear(torch.cat([prefix, reduced], 1), f"{name}.kv")
        k, v = kv.chunk(2, dim=2)
        heads = []
        for one_q, one_k, one_v in zip(
            *(part.chunk(config.num_heads[stage], dim=2) for part in (q, k, v)), strict=True
        ):
            scores = torch.einsum("bnd,bmd->bnm", one_q, one_k) / math.sqrt(one_q.shape[2])
            heads.append(scores.softmax(2) @ one_v)
        return self.linear(torch.cat(heads, dim=2), f"{name}.proj")

    def feed_forward(self, x: Tensor, size: tuple[int, int], name: str) -> Tensor:
        x = self.linear(x, f"{name}.fc1")
        if "cffn" in self.config.toggles:
            x = x.clamp(min=0) if self.config.ffn_relu else x
            prefix, feature_map = self.apart(x, size)
            convolved = self.convolve(feature_map, f"{name}.dwconv", padding=1, groups=feature_map.shape[1])
            x = torch.cat([prefix, convolved.flatten(2).permute(0, 2, 1)], 1)
        return self.linear(F.gelu(x), f"{name}.fc2")

    def apart(self, x: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Tokens before the map's, and the map."""
        prefix = x.shape[1] - size[0] * size[1]
        return x[:, :prefix], x[:, prefix:].permute(0, 2, 1).reshape(x.shape[0], -1, *size)

    def stage(self, x: Tensor, stage: int) -> tuple[Tensor, tuple[int, int]]:
        config, name = self.config, f"stages.{stage}"
        stride = config.stem_stride if stage == 0 else 2
        padding = stride - 1 if "ope" in config.toggles else 0
        x = self.convolve(x, f"{name}.patch_embed.proj", stride=stride, padding=padding)
        size = (x.shape[2], x.shape[3])
        x = self.norm(x.flatten(2).permute(0, 2, 1), f"{name}.patch_embed.norm", 1e-5)
        prefix = 0
        if config.pooling == "class_token" and stage == 3:
            prefix = 1
            x = torch.cat([self.weights[f"{name}.cls_token.weight"].expand(len(x), 1, -1), x], 1)
        if config.position_embedding == "learned":
            weight = self.weights[f"{name}.pos_embed.weight"]
            x = x + expected_positions(weight, grid_of(config, stage), size, prefix)
        for index in range(config.depths[stage]):
            block = f"{name}.blocks.{index}"
            x = x + self.attention(self.norm(x, f"{block}.norm1", 1e-6), size, stage, f"{block}.attn")
            x = x + self.feed_forward(self.norm(x, f"{block}.norm2", 1e-6), size, f"{block}.mlp")
        if config.stage_norm == "every" or stage == 3:
            x = self.norm(x, f"{name}.norm", 1e-6)
        return x, size

    def run(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns logits and the four stages' maps."""
        maps = []
        for stage in range(4):
            tokens, size = self.stage(x, stage)
            x = self.apart(tokens, size)[1]
            maps.append(x)
        pooled = tokens[:, 0] if self.config.pooling == "class_token" else tokens.mean(1)
        return self.linear(pooled, "head"), maps


# R = 8 and P = 3 do not divide the maps, and blocks stand one after another in two stages.
ODD_SIZES = {"depths": (1, 2, 1, 2), "pool_size": 3, "num_classes": 10}


@EVERY_MODEL
@torch.no_grad()
def test_every_arm_is_what_its_definition_says(randomise: Randomise, arm: str, base: str) -> None:
    models = {
        attention: randomise(build_model(build_config("pico", arm, base, attention=attention, **ODD_SIZES))).double()
        for attention in ("fused", "explicit")
    }
    reference = Reference(models["fused"].config, models["fused"].state_dict())
    for height, width in ((32, 32), (33, 75), (64, 50)):
        x = images(height, width, dtype=torch.float64)
        logits, maps = reference.run(x)
        for model in models.values():
            features, our_maps = model.forward_intermediates(x)
            torch.testing.assert_close(our_maps, maps, rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(model.forward_head(features), logits, rtol=1e-10, atol=1e-10)


@EVERY_MODEL
@torch.no_grad()
def test_any_input_from_32_pixels_on_gives_logits_and_maps(arm: str, base: str) -> None:
    # At 32 pixels a stem of stride 4 leaves one token in the last stage, far fewer than P x P.
    stems = {"stem_stride": 4, "img_size": 64, "pool_size": 7}, {}
    for overrides, (height, width) in product(stems, ((32, 32), (33, 33), (32, 95), (70, 41), (64, 128))):
        config = build_config("pico", arm, base, num_classes=5, **overrides)
        model = build_model(config).eval()
        x = images(height, width)
        logits = model(x)
        assert logits.shape == (2, 5)
        assert logits.isfinite().all()
        maps = model.forward_intermediates(x, intermediates_only=True)
        sizes = config.stage_sizes((height, width))
        assert [tuple(one.shape) for one in maps] == [
            (2, dim, *size) for dim, size in zip(config.embed_dims, sizes, strict=True)
        ]
        assert all(one.isfinite().all() for one in maps)


def test_features_and_head() -> None:
    x = images(32, 48)
    average = build_model(build_config("pico", "v1", "v2"))
    assert average.forward_features(x).shape == (2, 64, 2, 3)
    class_token = build_model(build_config("pico", "v1", "v1"))
    assert class_token.forward_features(x).shape == (2, 1 + 2 * 3, 64)
    for model in (average, class_token):
        assert model.forward_head(model.forward_features(x), pre_logits=True).shape == (2, 64)
        assert model(x).shape == (2, 1000)
    headless = build_model(build_config("pico", "v1", "v2", num_classes=0))
    assert headless(x).shape == (2, 64)
    assert not [key for key in headless.state_dict() if key.startswith("head")]


@pytest.mark.parametrize(("arm", "base"), [("v1", "v1"), ("v1+ope+cffn+lsra", "v2")])
@pytest.mark.parametrize(
    "shape", [(1, 3, 31, 64), (1, 3, 64, 31), (1, 1, 64, 64), (1, 4, 64, 64), (3, 64, 64), (3, 64)]
)
def test_impossible_input_is_refused(arm: str, base: str, shape: tuple[int, ...]) -> None:
    model = build_model(build_config("pico", arm, base))
    for method in (model, model.forward_features, model.forward_intermediates):
        with pytest.raises(InputError) as excinfo:
            method(torch.zeros(shape))
        allowed = "(B, 3, H, W) with H and W of 32 pixels or more"
        assert str(excinfo.value) == f"input shape={shape} is not possible; allowed: {allowed}"


def test_wide_reduction_needs_a_larger_input() -> None:
    model = build_model(build_config("pico", "v1", "v2", sr_ratios=(32, 4, 2, 1), img_size=64))
    with pytest.raises(InputError, match="H and W of 64 pixels or more"):
        model(images(64, 63))
    assert model(images(64, 64)).isfinite().all()


@pytest.mark.parametrize("index", [4, -5])
def test_unknown_stage_is_refused(index: int) -> None:
    model = build_model(build_config("pico"))
    allowed = r"is not possible; allowed: some of 0 to 3 in a list, or 1 to 4 as a number of the last$"
    with pytest.raises(InputError, match=rf"^indices=\[{index}\] {allowed}"):
        model.forward_intermediates(images(32, 32), indices=[index])
    with pytest.raises(InputError, match=rf"^indices=5 {allowed}"):
        model.forward_intermediates(images(32, 32), indices=5)


@pytest.mark.parametrize("in_chans", [1, 4])
def test_other_numbers_of_channels(in_chans: int) -> None:
    model = build_model(build_config("pico", in_chans=in_chans))
    assert model(torch.zeros(1, in_chans, 32, 32)).shape == (1, 1000)


@EVERY_ARM_IN_BOTH_BASES
def test_every_weight_matters(randomise: Randomise, arm: str, base: str) -> None:
    """The logits depend on every parameter, but for a last depth-wise convolution that the class token passes by."""
    model = randomise(build_model(build_config("pico", arm, base))).double()
    model(images(32, 32, dtype=torch.float64)).square().sum().backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad.abs().max() < 1e-9]
    last = [f"stages.3.blocks.0.mlp.dwconv.{name}" for name in ("weight", "bias")]
    assert without == (last if base == "v1" and "cffn" in arm else [])


@EVERY_ARM_IN_BOTH_BASES
def test_kernels_have_the_same_gradients(randomise: Randomise, arm: str, base: str) -> None:
    gradients = []
    for attention in ("fused", "explicit"):
        model = randomise(build_model(build_config("pico", arm, base, attention=attention))).double()
        model(images(40, 56, dtype=torch.float64)).square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


# Position embeddings and the class token.


def position_embeddings(model: nn.Module) -> list[PositionEmbedding]:
    return [module for module in model.modules() if isinstance(module, PositionEmbedding)]


@pytest.mark.parametrize("img_size", [32, (32, 64), 64])
@pytest.mark.parametrize("arm", ["v1", "v1+ope"])
@torch.no_grad()
def test_each_stage_adds_its_own_position_embedding_resized(randomise: Randomise, arm: str, img_size: Size) -> None:
    model = randomise(build_model(build_config("pico", arm, "v1", img_size=img_size)))
    embeddings = position_embeddings(model)
    assert [embedding.grid for embedding in embeddings] == [grid_of(model.config, stage) for stage in range(4)]
    added: list[tuple[Tensor, tuple[int, int]]] = []
    for embedding in embeddings:
        # What is added to zeros is what is added; the model's own tokens only give the map's size.
        embedding.register_forward_hook(
            lambda module, inputs, output: added.append(
                (module.forward(torch.zeros_like(inputs[0]), inputs[1]), inputs[1])
            )
        )
    # 64 and 128 square: stages whose maps are as large as an earlier stage's grid, where the released code fails.
    # 32 x 128: as many tokens as a grid of 64 x 64 pixels, in another shape.
    for size in ((32, 32), (64, 64), (128, 128), (32, 128), (47, 33)):
        added.clear()
        model(images(*size, batch_size=1))
        assert [map_size for _, map_size in added] == model.config.stage_sizes(size)
        for stage, (embedding, (positions, map_size)) in enumerate(zip(embeddings, added, strict=True)):
            prefix = int(stage == 3)
            expected = expected_positions(embedding.weight, embedding.grid, map_size, prefix)
            torch.testing.assert_close(positions.double(), expected, rtol=1e-5, atol=1e-5)


def test_position_embedding_is_itself_at_img_size(randomise: Randomise) -> None:
    model = randomise(build_model(build_config("pico", "v1", "v1", img_size=(32, 64))))
    for embedding, size in zip(position_embeddings(model), model.config.stage_sizes((32, 64)), strict=True):
        assert torch.equal(embedding(torch.zeros_like(embedding.weight), size), embedding.weight)


@pytest.mark.parametrize("arm", ["v1+cffn+lsra", "v1+ope+cffn+lsra"])
@torch.no_grad()
def test_class_token_passes_by_convolution_and_reduction(randomise: Randomise, arm: str) -> None:
    model = randomise(build_model(build_config("pico", arm, "v1")))
    block, size = model.stages[3].blocks[0], (3, 4)
    tokens = torch.randn(2, 1 + 3 * 4, 64)
    other = tokens.clone()
    other[:, 0] += 1.0

    # The same weights in a stage without a class token.
    twin = build_block(build_config("pico", arm, "v1", pooling="average"), stage=3).eval()
    twin.load_state_dict(block.state_dict())

    reduced = block.attn.reduce(tokens, size)
    assert reduced.shape == (2, 1 + 2 * 2, 64)
    assert torch.equal(reduced[:, 0], tokens[:, 0])
    torch.testing.assert_close(reduced[:, 1:], twin.attn.reduce(tokens[:, 1:], size))
    assert torch.equal(block.attn.reduce(other, size)[:, 1:], reduced[:, 1:])

    out = block.mlp(tokens, size)
    by_itself = block.mlp.fc2(F.gelu(block.mlp.fc1(tokens[:, :1])))
    torch.testing.assert_close(out[:, :1], by_itself)
    torch.testing.assert_close(out[:, 1:], twin.mlp(tokens[:, 1:], size))
    assert torch.equal(block.mlp(other, size)[:, 1:], out[:, 1:])

    # As a key it reaches every token, and as a query it sees every token.
    assert ((block.attn(other, size) - block.attn(tokens, size)).abs().amax(2) > 1e-4).all()


# Stochastic depth and weight decay.


def test_stochastic_depth_has_the_configs_rates() -> None:
    model = build_model(build_config("pico", depths=(1, 2, 1, 2), drop_path_rate=0.5))
    for branch in ("drop_path1", "drop_path2"):
        rates = [[getattr(block, branch).rate for block in stage.blocks] for stage in model.stages]
        assert rates == model.config.drop_path_rates()
    assert rates[-1][-1] == 0.5


@torch.no_grad()
def test_stochastic_depth_drops_a_branch_of_an_image_or_scales_it(randomise: Randomise) -> None:
    torch.manual_seed(0)
    model = randomise(build_model(build_config("pico", "v1", "v2", drop_path_rate=0.75)))
    block, size = model.stages[3].blocks[0], (2, 2)
    assert block.drop_path1.rate == block.drop_path2.rate == 0.75
    x = torch.randn(1, 4, 64)

    def after(attn_scale: float, mlp_scale: float) -> Tensor:
        middle = x + attn_scale * block.attn(block.norm1(x), size)
        return middle + mlp_scale * block.mlp(block.norm2(middle), size)

    torch.testing.assert_close(block(x, size), after(1, 1))
    outcomes = [after(attn_scale, mlp_scale) for attn_scale in (0, 4) for mlp_scale in (0, 4)]
    seen: Counter[int] = Counter()
    for row in block.train()(x.expand(256, -1, -1), size):
        distances = [(row - outcome[0]).abs().max().item() for outcome in outcomes]
        assert min(distances) < 1e-4
        seen[distances.index(min(distances))] += 1
    # Kept with 1/4: expected 144, 48, 48 and 16 of 256, with standard deviations of 8, 6, 6 and 4.
    assert [seen[outcome] for outcome in range(4)] == pytest.approx([144, 48, 48, 16], abs=25)
    assert min(seen.values()) > 0


@torch.no_grad()
def test_stochastic_depth_keeps_the_images_that_it_is_told(randomise: Randomise) -> None:
    model = randomise(build_model(build_config("pico", "v1", "v2", drop_path_rate=0.75))).train()
    block, size = model.stages[3].blocks[0], (2, 2)
    x = torch.randn(3, 4, 64)
    block.drop_path1.kept = torch.tensor([True, False, True])
    block.drop_path2.kept = torch.tensor([False, False, True])
    generator_state = torch.get_rng_state()
    out = block(x, size)
    assert torch.equal(torch.get_rng_state(), generator_state)  # nothing is drawn

    middle = x + torch.tensor([4.0, 0.0, 4.0]).view(-1, 1, 1) * block.attn(block.norm1(x), size)
    expected = middle + torch.tensor([0.0, 0.0, 4.0]).view(-1, 1, 1) * block.mlp(block.norm2(middle), size)
    torch.testing.assert_close(out, expected)
    assert torch.equal(out[1], x[1])
    torch.testing.assert_close(
        block.eval()(x, size),
        x + block.attn(block.norm1(x), size) + block.mlp(block.norm2(x + block.attn(block.norm1(x), size)), size),
    )


@torch.no_grad()
def test_stochastic_depth_is_for_training_only(randomise: Randomise) -> None:
    x = images(32, 32)
    dropping = randomise(build_model(build_config("pico", drop_path_rate=0.9)))
    plain = randomise(build_model(build_config("pico")))
    assert torch.equal(dropping(x), plain(x))
    assert torch.equal(plain.train()(x), plain.eval()(x))
    torch.manual_seed(0)
    assert not torch.allclose(dropping.train()(x), plain(x))


def test_only_the_class_token_is_named_for_no_weight_decay() -> None:
    assert build_model(build_config("pico", "v1", "v1")).no_weight_decay() == {"stages.3.cls_token.weight"}
    assert build_model(build_config("pico", "v1", "v2")).no_weight_decay() == set()


# What runs it: compilers, autocast, fake tensors, the meta device.


@pytest.mark.slow
@pytest.mark.parametrize(("arm", "base"), [("v1+cffn+lsra", "v1"), ("v1+ope+cffn", "v2")])
def test_compiles_into_one_graph_with_its_gradients(randomise: Randomise, arm: str, base: str) -> None:
    model = randomise(build_model(build_config("pico", arm, base)))
    x = images(40, 48)
    gradients = []
    for run in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
        model.zero_grad()
        run(x).square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    torch._dynamo.reset()
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_compiles_for_all_sizes_at_once(randomise: Randomise) -> None:
    model = randomise(build_model(build_config("pico", "v1", "published")))
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
    for size in ((40, 48), (75, 64)):
        torch.testing.assert_close(compiled(images(*size)), model(images(*size)))
    torch._dynamo.reset()


@EVERY_MODEL
def test_autocast_trains(randomise: Randomise, arm: str, base: str) -> None:
    model = randomise(build_model(build_config("pico", arm, base))).train()
    x = images(48, 40)
    expected = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
    assert logits.dtype == torch.bfloat16
    # Eight bits of mantissa through a dozen layers.
    assert (logits - expected).abs().max() < 0.1 * expected.abs().max()
    logits.float().square().sum().backward()
    for parameter in model.parameters():
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()


@EVERY_MODEL
def test_fake_tensors_train(arm: str, base: str) -> None:
    with FakeTensorMode():
        model = build_model(build_config("pico", arm, base, drop_path_rate=0.1))
        logits = model(torch.randn(2, 3, 75, 64))
        logits.sum().backward()
    assert isinstance(logits, FakeTensor)
    assert logits.shape == (2, 1000)
    assert all(parameter.grad.shape == parameter.shape for parameter in model.parameters())


@EVERY_MODEL
def test_meta_device(arm: str, base: str) -> None:
    with torch.device("meta"):
        model = build_model(build_config("b0", arm, base))
        maps = model.forward_intermediates(torch.empty(1, 3, 2048, 1000), intermediates_only=True)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert [tuple(one.shape[2:]) for one in maps] == model.config.stage_sizes((2048, 1000))


# Maps and tokens are views of each other.

COPIES = {"clone", "copy_", "_to_copy", "contiguous", "_reshape_copy", "cat"}


class CopyLog(TorchDispatchMode):
    """Counts operators that copy, and operands that a convolution or a LayerNorm would have to lay out anew."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in COPIES:
            self.seen[name] += 1
        if name == "convolution" and not all(
            one.is_contiguous(memory_format=torch.channels_last) for one in (args[0], out)
        ):
            self.seen["convolution of another layout"] += 1
        if name == "native_layer_norm" and not args[0].is_contiguous():
            self.seen["norm of another layout"] += 1
        return out


def copies_of(model: PVT, x: Tensor) -> dict[str, int]:
    with CopyLog() as log:
        model(x)
    return dict(log.seen)


CHANNELS_LAST = torch.channels_last
TWO_BLOCKS = {"depths": (2, 2, 2, 2), "img_size": (48, 64)}


@pytest.mark.parametrize(("batch_size", "training"), [(1, False), (2, False), (2, True)])
@EVERY_ARM_IN_BOTH_BASES
def test_nothing_is_copied_between_tokens_and_maps(arm: str, base: str, batch_size: int, training: bool) -> None:
    """With channels-last input and the fused kernel no operator copies, but where a class token is joined.

    In the last stage of the v1 base the class token is joined to the map's tokens once, and again after each
    convolution or reduction that it passed by; and as the tokens of several images stand between their maps, the
    depth-wise convolution lays those maps out anew.
    """
    model = build_model(build_config("pico", arm, base, **TWO_BLOCKS)).train(training)
    expected = {}
    if base == "v1":
        convolutions, reductions = 2 * ("cffn" in arm), 2 * ("lsra" in arm)
        expected["cat"] = 1 + convolutions + reductions
        expected["convolution of another layout"] = convolutions if batch_size > 1 else 0
    with torch.set_grad_enabled(training):
        copies = copies_of(model, images(48, 64, batch_size).contiguous(memory_format=CHANNELS_LAST))
    assert copies == {name: count for name, count in expected.items() if count}


@pytest.mark.parametrize("arm", ["v1", "v1+ope+cffn+lsra"])
def test_explicit_attention_copies_heads_and_nothing_else(arm: str) -> None:
    """A batched product needs q, k, v and its own result with whole heads: four copies a block of two heads or more."""
    model = build_model(build_config("pico", arm, "v2", attention="explicit", **TWO_BLOCKS))
    copies = copies_of(model, images(48, 64).contiguous(memory_format=CHANNELS_LAST))
    assert copies == {"clone": 4 * 2 * 3}


def test_other_layouts_are_copied_once() -> None:
    model = build_model(build_config("pico", "v1+ope+cffn", "v2", **TWO_BLOCKS))
    assert copies_of(model, images(48, 64)) == {"clone": 1}
