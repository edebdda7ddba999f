"""Parameters and MACs in closed form, module by module, without torch.

Counted are the MACs of convolutions and matrix products, attention's two products included, of one image's forward
pass: the unit of the paper's "GFLOPs" columns. Norms, activations, pooling and interpolation count as none.
Every row has the name of the module in `ablations.model` whose work it is; tests compare each with the traced count. A
toggle without a closed form has the traced count alone (`has_closed_form`).
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from math import prod
from typing import NamedTuple

from ablations.config import BLOCK_SLOTS, NUM_STAGES, PVTConfig, Size
from ablations.errors import refuse
from ablations.toggle_files import find_function


class ModuleCost(NamedTuple):
    """What one module adds by itself, without its children."""

    name: str
    params: int
    macs: int


def count_params(config: PVTConfig) -> int:
    """Returns the number of learned parameters; raises InputError for a toggle without a closed form."""
    return sum(times * row.params for row, times in _rows(config, config.img_size))


def count_macs(config: PVTConfig, resolution: Size) -> int:
    """Returns the MACs of one image of `resolution` pixels.

    Raises InputError for an image that is too small, and for a toggle without a closed form.
    """
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
    for stage, size in enumerate(config.stage_sizes(resolution)):
        path = f"stages.{stage}"
        for part in ("patch_embed", "pos_embed"):
            for row in _slot(config, part, part, stage, size):
                yield row._replace(name=f"{path}.{row.name}"), 1
        if config.num_prefix_tokens(stage):
            yield ModuleCost(f"{path}.cls_token", config.embed_dims[stage], 0), 1
        for row in _slot(config, "block", "blocks.{block}", stage, size):
            yield row._replace(name=f"{path}.{row.name}"), config.depths[stage]
        if config.has_stage_norm(stage):
            yield _norm(f"{path}.norm", config.embed_dims[stage]), 1
        if stage == NUM_STAGES - 1:
            for row in _slot(config, "pool", "pool", stage, size):
                yield row, 1
    if config.num_classes:
        yield _linear("head", config.embed_dims[-1], config.num_classes, tokens=1), 1


def has_closed_form(config: PVTConfig) -> bool:
    """Whether every slot is filled by an alternative that has one."""
    return all(config.alternative(slot).cost for slot in config.filled_slots)


def _slot(config: PVTConfig, slot: str, part: str, stage: int, size: tuple[int, int]) -> Iterator[ModuleCost]:
    """Yields the rows of what fills a slot, under the name of the part of the stage or block that it is."""
    function = config.alternative(slot).cost
    if function is None:
        raise refuse("toggles", config.toggles, f"toggles with a closed-form cost; the one in slot {slot} has none")
    for row in find_function(function)(config, stage, size):
        yield row._replace(name=f"{part}.{row.name}" if row.name else part)


def patch_embed_cost(config: PVTConfig, stage: int, size: tuple[int, int]) -> Iterator[ModuleCost]:
    """Slot `patch_embed`, v1: kernel S."""
    yield from _conv_embed(config, stage, size, kernel=config.strides[stage])


def overlapping_patch_embed_cost(config: PVTConfig, stage: int, size: tuple[int, int]) -> Iterator[ModuleCost]:
    """Toggle `ope`: kernel 2S - 1."""
    yield from _conv_embed(config, stage, size, kernel=2 * config.strides[stage] - 1)


def _conv_embed(config: PVTConfig, stage: int, size: tuple[int, int], kernel: int) -> Iterator[ModuleCost]:
    dim = config.embed_dims[stage]
    yield _conv("proj", (config.in_chans, *config.embed_dims)[stage], dim, kernel, tokens=prod(size))
    yield _norm("norm", dim)


def position_embedding_cost(config: PVTConfig, stage: int, size: tuple[int, int]) -> Iterator[ModuleCost]:
    """Slot `pos_embed`, as the confounder says: a vector for each token of the grid and for a class token, or none."""
    if config.position_embedding == "learned":
        grid = prod(config.stage_sizes(config.img_size)[stage])
        yield ModuleCost("", (config.num_prefix_tokens(stage) + grid) * config.embed_dims[stage], 0)


def block_cost(config: PVTConfig, stage: int, size: tuple[int, int]) -> Iterator[ModuleCost]:
    """Slot `block`: its parts."""
    for part, slot in BLOCK_SLOTS.items():
        yield from _slot(config, slot, part, stage, size)


def pool_cost(config: PVTConfig, stage: int, size: tuple[int, int]) -> Iterator[ModuleCost]:
    """Slot `pool`, as the confounder says: neither choice has parameters or MACs."""
    yield from ()


def norm_cost(config: PVTConfig, stage: int, size: tuple[int, int]) -> Iterator[ModuleCost]:
    """Slot `norm`, LayerNorm."""
    yield _norm("", config.embed_dims[stage])


def sra_cost(config: PVTConfig, stage: int, size: tuple[int, int]) -> Iterator[ModuleCost]:
    """Slot `attn`, v1: keys and values from R x R tokens each."""
    dim, sr_ratio = config.embed_dims[stage], config.sr_ratios[stage]
    reduced = (size[0] // sr_ratio) * (size[1] // sr_ratio)
    if sr_ratio > 1:
        yield _conv("sr", dim, dim, kernel=sr_ratio, tokens=reduced)
        yield _norm("norm", dim)
    yield from _attention(config, stage, size, reduced)


def linear_sra_cost(config: PVTConfig, stage: int, size: tuple[int, int]) -> Iterator[ModuleCost]:
    """Toggle `lsra`: P x P keys and values."""
    dim, reduced = config.embed_dims[stage], config.pool_size**2
    yield _conv("sr", dim, dim, kernel=1, tokens=reduced)
    yield _norm("norm", dim)
    yield from _attention(config, stage, size, reduced)


def _attention(config: PVTConfig, stage: int, size: tuple[int, int], reduced: int) -> Iterator[ModuleCost]:
    """Yields the attention of all tokens to `reduced` ones of the map; the prefix is among both."""
    dim, prefix = config.embed_dims[stage], config.num_prefix_tokens(stage)
    queries, keys = prod(size) + prefix, reduced + prefix
    yield _linear("q", dim, dim, tokens=queries, bias=config.qkv_bias)
    yield _linear("kv", dim, 2 * dim, tokens=keys, bias=config.qkv_bias)
    yield ModuleCost("", 0, 2 * queries * keys * dim)
    yield _linear("proj", dim, dim, tokens=queries)


def mlp_cost(config: PVTConfig, stage: int, size: tuple[int, int]) -> Iterator[ModuleCost]:
    """Slot `mlp`, v1: two linear layers."""
    dim, tokens = config.embed_dims[stage], prod(size) + config.num_prefix_tokens(stage)
    hidden_dim = dim * config.mlp_ratios[stage]
    yield _linear("fc1", dim, hidden_dim, tokens=tokens)
    yield _linear("fc2", hidden_dim, dim, tokens=tokens)


def conv_mlp_cost(config: PVTConfig, stage: int, size: tuple[int, int]) -> Iterator[ModuleCost]:
    """Toggle `cffn`: a 3x3 depth-wise convolution of the map between them."""
    fc1, fc2 = mlp_cost(config, stage, size)
    yield fc1
    yield _conv("dwconv", 1, config.embed_dims[stage] * config.mlp_ratios[stage], kernel=3, tokens=prod(size))
    yield fc2


def _linear(name: str, dim_in: int, dim_out: int, tokens: int, bias: bool = True) -> ModuleCost:
    return ModuleCost(name, dim_in * dim_out + bias * dim_out, tokens * dim_in * dim_out)


def _conv(name: str, chans_per_group: int, dim_out: int, kernel: int, tokens: int) -> ModuleCost:
    weights = kernel**2 * chans_per_group * dim_out
    return ModuleCost(name, weights + dim_out, tokens * weights)


def _norm(name: str, dim: int) -> ModuleCost:
    return ModuleCost(name, 2 * dim, 0)


def sra_formula(height: int, width: int, channels: int, sr_ratio: int) -> tuple[float, float]:
    """Returns the two terms that the paper gives for SRA on a map in tokens: 2h²w²c / R² and hwc²R² (section 3.1).

    The first is the two products of attention. The second is meant for the reduction, whose convolution of R x R with
    stride R takes hwc²: R² weights at each of hw / R² places.
    """
    tokens = height * width
    return 2 * tokens**2 * channels / sr_ratio**2, tokens * channels**2 * sr_ratio**2


def linear_sra_formula(height: int, width: int, channels: int, pool_size: int) -> int:
    """Returns the term that the paper gives for linear SRA on a map in tokens: 2hwP²c (section 3.1)."""
    return 2 * height * width * pool_size**2 * channels


def find_crossover(sra: PVTConfig, linear_sra: PVTConfig, sides: Sequence[int]) -> int | None:
    """Returns the first of the rising `sides` (pixels) from which on linear SRA takes fewer MACs.

    None where it does not even at the last. What linear SRA saves only grows with the side, so halves are searched.
    """
    place = bisect_left(sides, True, key=lambda side: count_macs(linear_sra, side) < count_macs(sra, side))
    return sides[place] if place < len(sides) else None
