"""Parameters and multiply-adds in closed form, module by module, without torch.

Counted are the multiply-adds of convolutions and matrix products, attention's two products included, of one picture's
forward pass: the unit of the paper's "GFLOPs" columns. Norms, activations, pooling and interpolation count as none.
Every row bears the name of the module in `ablations.model` whose work it is, and the tests hold each against a trace.
"""

from collections.abc import Iterator, Sequence
from math import prod
from typing import NamedTuple

from ablations.config import NUM_STAGES, PVTConfig, Size


class ModuleCost(NamedTuple):
    """What one module adds by itself, without its children."""

    name: str
    params: int
    macs: int


def count_params(config: PVTConfig) -> int:
    """Returns the number of learned parameters."""
    return sum(times * row.params for row, times in _rows(config, config.img_size))


def count_macs(config: PVTConfig, resolution: Size) -> int:
    """Returns the multiply-adds of one picture of `resolution` pixels; raises InputError if it is too small."""
    return sum(times * row.macs for row, times in _rows(config, resolution))


def module_costs(config: PVTConfig, resolution: Size) -> list[ModuleCost]:
    """Returns the rows that the totals are sums of, stage by stage; a block's rows are repeated block by block."""
    return [
        ModuleCost(row.name.format(block=block), row.params, row.macs)
        for row, times in _rows(config, resolution)
        for block in range(times)
    ]


def _rows(config: PVTConfig, resolution: Size) -> Iterator[tuple[ModuleCost, int]]:
    """Yields each row with how often it occurs; the blocks of a stage are alike, and their names hold `{block}`."""
    sizes = config.stage_sizes(resolution)
    for stage in range(NUM_STAGES):
        path = f"stages.{stage}"
        for row in _entry(config, stage, sizes[stage]):
            yield row._replace(name=f"{path}.{row.name}"), 1
        for row in (*_attention(config, stage, sizes[stage]), *_feed_forward(config, stage, sizes[stage])):
            yield row._replace(name=f"{path}.blocks.{{block}}.{row.name}"), config.depths[stage]
        if config.has_stage_norm(stage):
            yield _norm(f"{path}.norm", config.embed_dims[stage]), 1
    if config.num_classes:
        yield _linear("head", config.embed_dims[-1], config.num_classes, tokens=1), 1


def _entry(config: PVTConfig, stage: int, size: tuple[int, int]) -> Iterator[ModuleCost]:
    dim, stride, prefix = config.embed_dims[stage], config.strides[stage], config.num_prefix_tokens(stage)
    in_chans = (config.in_chans, *config.embed_dims)[stage]
    kernel = 2 * stride - 1 if config.overlapping_patch_embed else stride
    yield _conv("patch_embed.proj", in_chans, dim, kernel, tokens=prod(size))
    yield _norm("patch_embed.norm", dim)
    if prefix:
        yield ModuleCost("embeddings.0", dim, 0)
    if config.position_embedding == "learned":
        grid = prod(config.stage_sizes(config.img_size)[stage])
        yield ModuleCost(f"embeddings.{prefix}", (prefix + grid) * dim, 0)


def _attention(config: PVTConfig, stage: int, size: tuple[int, int]) -> Iterator[ModuleCost]:
    dim, sr_ratio, prefix = config.embed_dims[stage], config.sr_ratios[stage], config.num_prefix_tokens(stage)
    queries = prod(size) + prefix
    yield _norm("norm1", dim)
    yield _linear("attn.q", dim, dim, tokens=queries, bias=config.qkv_bias)
    if config.linear_sra:
        reduced = config.pool_size**2
        yield _conv("attn.sr", dim, dim, kernel=1, tokens=reduced)
    else:
        reduced = (size[0] // sr_ratio) * (size[1] // sr_ratio)
        if sr_ratio > 1:
            yield _conv("attn.sr", dim, dim, kernel=sr_ratio, tokens=reduced)
    if config.linear_sra or sr_ratio > 1:
        yield _norm("attn.norm", dim)
    keys = reduced + prefix
    yield _linear("attn.kv", dim, 2 * dim, tokens=keys, bias=config.qkv_bias)
    yield ModuleCost("attn", 0, 2 * queries * keys * dim)
    yield _linear("attn.proj", dim, dim, tokens=queries)


def _feed_forward(config: PVTConfig, stage: int, size: tuple[int, int]) -> Iterator[ModuleCost]:
    dim = config.embed_dims[stage]
    hidden_dim = dim * config.mlp_ratios[stage]
    tokens = prod(size) + config.num_prefix_tokens(stage)
    yield _norm("norm2", dim)
    yield _linear("mlp.fc1", dim, hidden_dim, tokens=tokens)
    if config.conv_feed_forward:
        yield _conv("mlp.dwconv", 1, hidden_dim, kernel=3, tokens=prod(size))
    yield _linear("mlp.fc2", hidden_dim, dim, tokens=tokens)


def _linear(name: str, dim_in: int, dim_out: int, tokens: int, bias: bool = True) -> ModuleCost:
    return ModuleCost(name, dim_in * dim_out + bias * dim_out, tokens * dim_in * dim_out)


def _conv(name: str, chans_per_group: int, dim_out: int, kernel: int, tokens: int) -> ModuleCost:
    weights = kernel**2 * chans_per_group * dim_out
    return ModuleCost(name, weights + dim_out, tokens * weights)


def _norm(name: str, dim: int) -> ModuleCost:
    return ModuleCost(name, 2 * dim, 0)


def sra_formula(height: int, width: int, channels: int, sr_ratio: int) -> tuple[float, float]:
    """Returns the two terms that the paper prints for SRA on a map in tokens: 2h²w²c / R² and hwc²R² (section 3.1).

    The first is the two products of attention. The second is meant for the reduction, whose convolution of R x R with
    stride R takes hwc²: R² weights at each of hw / R² places.
    """
    tokens = height * width
    return 2 * tokens**2 * channels / sr_ratio**2, tokens * channels**2 * sr_ratio**2


def linear_sra_formula(height: int, width: int, channels: int, pool_size: int) -> int:
    """Returns the term that the paper prints for linear SRA on a map in tokens: 2hwP²c (section 3.1)."""
    return 2 * height * width * pool_size**2 * channels


def find_crossover(sra: PVTConfig, linear_sra: PVTConfig, sides: Sequence[int]) -> int | None:
    """Returns the first of the rising `sides` (pixels) from which on linear SRA takes fewer multiply-adds.

    None where it does not even at the last.
    """
    crossover = None
    for side in reversed(sides):
        if count_macs(linear_sra, side) >= count_macs(sra, side):
            break
        crossover = side
    return crossover
