"""The Pyramid Vision Transformer, v1 to v2, assembled from a PVTConfig. Read from the top: leaf to root.

Letters: B images, C channels, H x W the map of a stage, N = H·W its tokens, behind a prefix of class tokens if any.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from operator import mul
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ablations.config import BLOCK_SLOTS, NUM_STAGES, SLOTS, TOGGLES, PVTConfig
from ablations.errors import refuse
from ablations.model.initial_weights import draw_initial_weights
from ablations.model.slots import build_slot
from ablations.model.tokens import as_map, as_tokens

BLOCK_NORM_EPS = 1e-6
"""Of the LayerNorms in blocks and after stages, as in the released code; after convolutions it is CONV_NORM_EPS."""


def build_norm(config: PVTConfig, stage: int) -> nn.LayerNorm:
    """Slot `norm`: the norm before attention, or before the feed-forward."""
    return nn.LayerNorm(config.embed_dims[stage], eps=BLOCK_NORM_EPS)


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): in training, a residual branch (B, N, C) is zero for some whole images.

    The others are scaled up, so that its expectation stays. `kept` (B,), booleans, says which images keep the branch;
    where it is None they are drawn from torch's generator.
    """

    kept: Tensor | None

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.kept = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        kept = self.kept
        if kept is None:
            draws = x.new_empty(x.shape[0], dtype=torch.float32).uniform_()  # torch.fx cannot trace torch.rand in 2.8
            kept = draws >= self.rate
        return x * (kept.to(x.dtype) / (1.0 - self.rate)).view(-1, 1, 1)


class Block(nn.Module):
    """Attention and feed-forward on a residual stream: tokens (B, N, C) to tokens (B, N, C)."""

    def __init__(
        self, norm1: nn.Module, attn: nn.Module, norm2: nn.Module, mlp: nn.Module, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = norm1
        self.attn = attn
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = norm2
        self.mlp = mlp
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = x + self.drop_path1(self.attn(self.norm1(x), size))
        return x + self.drop_path2(self.mlp(self.norm2(x), size))


class DroppedBlock(nn.Module):
    """Stochastic depth around a whole block from a file: tokens (B, N, C) to tokens (B, N, C)."""

    def __init__(self, block: nn.Module, drop_path: float) -> None:
        super().__init__()
        self.block = block
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return x + self.drop_path(self.block(x, size) - x)


def build_block(
    config: PVTConfig, stage: int, drop_path: float = 0.0, seed: int | None = None, path: str = ""
) -> nn.Module:
    """Returns a block of a stage (from 0): tokens (B, N, C) and their map's size to tokens."""
    if config.alternative("block") is not SLOTS["block"]:
        block = build_slot("block", config, stage, seed, path)
        return DroppedBlock(block, drop_path) if drop_path else block
    parts = {name: build_slot(slot, config, stage, seed, f"{path}.{name}") for name, slot in BLOCK_SLOTS.items()}
    return Block(**parts, drop_path=drop_path)


class ClassToken(nn.Module):
    """Confounder `pooling="class_token"`: puts a learned token before the map's, (B, N, C) to (B, 1 + N, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1, dim))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.weight.expand(x.shape[0], -1, -1), x], dim=1)


@torch.fx.wrap
def resize_pos_embed(pos_embed: Tensor, grid: tuple[int, int], size: tuple[int, int], num_prefix_tokens: int) -> Tensor:
    """Returns position embeddings (1, prefix + grid's, C) for a map of another size, interpolated bilinearly."""
    exporting = False
    if not torch.jit.is_scripting():
        # An exported model takes any size, and must not be bound to sizes other than the grid's.
        exporting = torch.compiler.is_exporting()
    if not exporting and grid[0] == size[0] and grid[1] == size[1]:
        return pos_embed
    resized = F.interpolate(as_map(pos_embed, grid, num_prefix_tokens), [size[0], size[1]], mode="bilinear")
    return torch.cat([pos_embed[:, :num_prefix_tokens], as_tokens(resized)], dim=1)


class PositionEmbedding(nn.Module):
    """Confounder `position_embedding="learned"`: adds a vector to each token of a `grid`; other maps get it resized.

    A class token has a vector of its own, which is never resized.
    """

    def __init__(self, dim: int, grid: tuple[int, int], num_prefix_tokens: int = 0) -> None:
        super().__init__()
        self.grid = grid
        self.num_prefix_tokens = num_prefix_tokens
        self.weight = nn.Parameter(torch.zeros(1, num_prefix_tokens + grid[0] * grid[1], dim))

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return x + resize_pos_embed(self.weight, self.grid, size, self.num_prefix_tokens)


class NoPositionEmbedding(nn.Module):
    """Confounder `position_embedding="none"`: tokens (B, N, C) pass unchanged."""

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return x


def build_position_embedding(config: PVTConfig, stage: int) -> nn.Module:
    """Slot `pos_embed`: what the confounder says."""
    if config.position_embedding == "none":
        return NoPositionEmbedding()
    grid = config.stage_sizes(config.img_size)[stage]
    return PositionEmbedding(config.embed_dims[stage], grid, config.num_prefix_tokens(stage))


class Stage(nn.Module):
    """Patch embedding, blocks, LayerNorm: a map (B, C', H', W') to tokens (B, prefix + N, C) and a map (B, C, H, W).

    The two are views of one memory; the map lacks the prefix.
    """

    def __init__(
        self,
        patch_embed: nn.Module,
        cls_token: nn.Module,
        pos_embed: nn.Module,
        blocks: Sequence[nn.Module],
        norm: nn.Module,
        num_prefix_tokens: int = 0,
    ) -> None:
        super().__init__()
        self.patch_embed = patch_embed
        self.cls_token = cls_token
        self.pos_embed = pos_embed
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.num_prefix_tokens = num_prefix_tokens
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x, size = self.patch_embed(x)
        x = self.pos_embed(self.cls_token(x), size)
        for block in self.blocks:
            if self.grad_checkpointing and self.training and not torch.jit.is_scripting():
                x = checkpoint(block, x, size, use_reentrant=False)
            else:
                x = block(x, size)
        x = self.norm(x)
        return x, as_map(x, size, self.num_prefix_tokens)


def build_stage(config: PVTConfig, stage: int, seed: int | None) -> Stage:
    """Returns a stage (from 0) of a config."""
    dim, prefix, path = config.embed_dims[stage], config.num_prefix_tokens(stage), f"stages.{stage}"
    rates = enumerate(config.drop_path_rates()[stage])
    return Stage(
        patch_embed=build_slot("patch_embed", config, stage, seed, f"{path}.patch_embed"),
        cls_token=ClassToken(dim) if prefix else nn.Identity(),
        pos_embed=build_slot("pos_embed", config, stage, seed, f"{path}.pos_embed"),
        blocks=[build_block(config, stage, rate, seed, f"{path}.blocks.{place}") for place, rate in rates],
        norm=nn.LayerNorm(dim, eps=BLOCK_NORM_EPS) if config.has_stage_norm(stage) else nn.Identity(),
        num_prefix_tokens=prefix,
    )


class AveragePool(nn.Module):
    """Confounder `pooling="average"`: the last stage's map (B, C, H, W) to (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


class ClassTokenPool(nn.Module):
    """Confounder `pooling="class_token"`: the last stage's tokens (B, 1 + N, C) to the class token, (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


def build_pool(config: PVTConfig, stage: int) -> nn.Module:
    """Slot `pool`: what the confounder says."""
    return ClassTokenPool() if config.num_prefix_tokens(stage) else AveragePool()


@torch.fx.wrap
def check_images(x: Tensor, in_chans: int, smallest_side: int) -> None:
    """Raises InputError for what is no batch of images of `in_chans` channels and at least `smallest_side` pixels."""
    if x.dim() != 4 or x.shape[1] != in_chans or x.shape[2] < smallest_side or x.shape[3] < smallest_side:
        allowed = f"(B, {in_chans}, H, W) with H and W of {smallest_side} pixels or more"
        raise refuse("input shape", tuple(x.shape), allowed)


POOLS = {"average": "avg", "class_token": "token"}
"""timm's `global_pool` for the confounder `pooling`; a toggle's is its short name."""


def _checked_pool(config: PVTConfig, global_pool: str | None) -> str:
    toggle = next((name for name in config.toggles if TOGGLES[name].slot == "pool"), None)
    own = toggle or POOLS[config.pooling]
    if global_pool is None:
        return own
    if global_pool == own or (global_pool == "" and not config.num_classes):
        return global_pool
    source = f"the toggle {toggle}" if toggle else f"pooling={config.pooling!r}"
    raise refuse("global_pool", global_pool, f"{own!r}, which {source} is, or '' where num_classes is 0")


def _take_indices(num_stages: int, indices: int | list[int] | None) -> tuple[list[int], int]:
    """Returns the stages that are meant, from 0, and the last of them; raises InputError where there are none such."""
    try:
        return feature_take_indices(num_stages, indices)
    except (AssertionError, ValueError) as error:  # out of range, or an empty list
        allowed = f"some of 0 to {num_stages - 1} in a list, or 1 to {num_stages} as a number of the last"
        raise refuse("indices", indices, allowed) from error


class PVT(nn.Module):
    """A PVT with any setting of toggles and confounders: images (B, in_chans, H, W) to logits (B, num_classes).

    H and W may be any sizes from `config.smallest_side` up; other inputs raise InputError. The initial weights depend
    on `seed` and each parameter's name (`ablations.model.initial_weights`); without a seed, torch's generator draws
    one. `drop_rate` is that of a dropout before the head. Attributes and methods are those that timm's tools ask of a
    model; `global_pool` is timm's word for the config's `pooling`, and may be "" where there is no head.
    """

    def __init__(
        self, config: PVTConfig, *, seed: int | None = None, drop_rate: float = 0.0, global_pool: str | None = None
    ) -> None:
        super().__init__()
        if not isinstance(drop_rate, int | float) or not 0 <= drop_rate < 1:
            raise refuse("drop_rate", drop_rate, "0 or more and less than 1")
        self.config = config
        self.num_classes = config.num_classes
        self.in_chans = config.in_chans
        self.smallest_side = config.smallest_side
        self.num_features = self.head_hidden_size = config.embed_dims[-1]
        self.num_prefix_tokens = config.num_prefix_tokens(NUM_STAGES - 1)
        self.global_pool = _checked_pool(config, global_pool)
        reductions = accumulate(config.strides, mul)
        self.feature_info = [
            {"num_chs": dim, "reduction": reduction, "module": f"stages.{stage}"}
            for stage, (dim, reduction) in enumerate(zip(config.embed_dims, reductions, strict=True))
        ]
        self.stages = nn.ModuleList(build_stage(config, stage, seed) for stage in range(NUM_STAGES))
        self.pool: nn.Module = nn.Identity()
        if self.global_pool:
            self.pool = build_slot("pool", config, NUM_STAGES - 1, seed, "pool")
        self.head_drop = nn.Dropout(drop_rate)
        self.head: nn.Module = nn.Linear(self.num_features, config.num_classes) if config.num_classes else nn.Identity()
        draw_initial_weights(self, seed, config.conv_init)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Returns the last stage's output: its map (B, C, H, W), or with a class token its tokens (B, 1 + N, C)."""
        x = self._prepare(x)
        tokens = x
        for stage in self.stages:
            tokens, x = stage(x)
        return tokens if self.num_prefix_tokens > 0 else x

    def _prepare(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting():
            check_images(x, self.in_chans, self.smallest_side)
        # From here on every map is channels-last, so that maps and tokens are views of each other.
        return x.contiguous(memory_format=torch.channels_last)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pools features to (B, C) and, unless `pre_logits`, classifies them: (B, num_classes)."""
        x = self.head_drop(self.pool(x))
        return x if pre_logits else self.head(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Returns the stages' maps (B, C, H, W), with `forward_features`' output before them unless told otherwise.

        `indices` picks stages: a list of them, whose order the maps have, or how many of the last; all by default.
        Maps come with their stage's norm whatever `norm` says. With `stop_early` stages after the last one picked do
        not run.
        """
        if output_fmt != "NCHW":
            raise refuse("output_fmt", output_fmt, "'NCHW'")
        taken, last = _take_indices(len(self.stages), indices)
        x = self._prepare(x)
        tokens, maps = x, {}
        for number, stage in enumerate(self.stages[: last + 1] if stop_early else self.stages):
            tokens, x = stage(x)
            if number in taken:
                maps[number] = x
        chosen = [maps[number] for number in taken]
        if intermediates_only:
            return chosen
        return (tokens if self.num_prefix_tokens > 0 else x), chosen

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Removes the stages after the last of `indices`, and the head; returns the indices counted from 0.

        Norms belong to their stages and stay, whatever `prune_norm` says.
        """
        taken, last = _take_indices(len(self.stages), indices)
        if last + 1 < len(self.stages):
            self.stages = self.stages[: last + 1]
            self.num_features = self.head_hidden_size = self.config.embed_dims[last]
            # A class token joins in the last stage only, and a toggle's pooling reads it: what is left ends with a map.
            left = tuple(name for name in self.config.toggles if TOGGLES[name].slot != "pool")
            self.config = replace(self.config, pooling="average", toggles=left)
            self.num_prefix_tokens = 0
        if prune_head or last + 1 < NUM_STAGES:
            self.reset_classifier(0, "")
        return taken

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Puts a fresh head in the place of the old one, or none where `num_classes` is 0."""
        config, like = replace(self.config, num_classes=num_classes), next(self.parameters())
        pool = _checked_pool(config, self.global_pool if global_pool is None else global_pool)
        if not pool:
            self.pool = nn.Identity()
        elif not self.global_pool:  # it was left out before
            self.pool = build_slot("pool", config, NUM_STAGES - 1, None, "pool").to(like)
        self.config, self.num_classes, self.global_pool = config, num_classes, pool
        if not num_classes:
            self.head = nn.Identity()
            return
        head = nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
        nn.init.normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
        self.head = head

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True, stages: Sequence[int] | None = None) -> None:
        """Has blocks keep only their input for the backward pass, and compute the rest again (Chen et al. 2016).

        `stages`, from 0, are those that it is said of; all by default.
        """
        for number, stage in enumerate(cast("Iterable[Stage]", self.stages)):
            if stages is None or number in stages:
                stage.grad_checkpointing = enable

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that are not decayed, beside the one-dimensional ones.

        They are the class token, as in the official recipe, and what a layer from a file spares, if it has this method.
        """
        spared = {name for name, _ in self.named_parameters() if name.endswith(".cls_token.weight")}
        for path, module in self.named_modules():
            if module is not self and callable(own := getattr(module, "no_weight_decay", None)):
                spared |= {f"{path}.{name}" for name in own()}
        return spared

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Returns timm's patterns of the layers for its layer decay: the stem, each block, and what is left, the head.

        A later stage's patch embedding goes with its first block, a stage's norm with its last. `coarse` makes stages
        of the blocks.
        """
        blocks = [
            (r"^stages\.(\d+)\.(?:patch_embed|cls_token|pos_embed)\.", (0,)),
            (r"^stages\.(\d+)\.blocks\.(\d+)\.", None),
            (r"^stages\.(\d+)\.norm\.", (99999,)),  # timm's mark of what belongs to the group before it
        ]
        stem = r"^stages\.0\.(?:patch_embed|pos_embed)\."
        return {"stem": stem, "blocks": r"^stages\.(\d+)\." if coarse else blocks}


def build_model(config: PVTConfig, seed: int | None = None) -> PVT:
    """Returns the model of a config with fresh weights, on the current default device and in training mode."""
    return PVT(config, seed=seed)
