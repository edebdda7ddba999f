"""The Pyramid Vision Transformer, v1 to v2, assembled from a PVTConfig. Read from the top: leaf to root."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from ablations.config import NUM_STAGES, PVTConfig
from ablations.errors import refuse
from ablations.model.attention import build_attention
from ablations.model.feed_forward import build_feed_forward
from ablations.model.patch_embed import build_patch_embed
from ablations.model.tokens import as_map, as_tokens


class Block(nn.Module):
    """Attention and feed-forward on a residual stream: tokens (B, N, C) to tokens (B, N, C)."""

    def __init__(self, config: PVTConfig, stage: int, drop_path: float) -> None:
        super().__init__()
        dim = config.embed_dims[stage]
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = build_attention(config, stage)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = build_feed_forward(config, stage)
        self.drop_path = StochasticDepth(drop_path, mode="row")

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        return x + self.drop_path(self.mlp(self.norm2(x), size))


class ClassToken(nn.Module):
    """Rider `pooling="class_token"`: puts one learned token before the map's, (B, N, C) to (B, 1 + N, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, dim))

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)


class PositionEmbedding(nn.Module):
    """Rider `position_embedding="learned"`: one vector for each token of `grid`, resized to other maps.

    A class token has a vector of its own, which is never resized.
    """

    def __init__(self, dim: int, grid: tuple[int, int], num_prefix_tokens: int) -> None:
        super().__init__()
        self.grid = grid
        self.num_prefix_tokens = num_prefix_tokens
        self.weight = nn.Parameter(torch.zeros(1, num_prefix_tokens + grid[0] * grid[1], dim))

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return x + (self.weight if size == self.grid else self.resized(size))

    def resized(self, size: tuple[int, int]) -> Tensor:
        """Returns the embedding of a map of another size, (1, prefix + H·W, C), interpolated bilinearly."""
        resized = F.interpolate(as_map(self.weight, self.grid), size, mode="bilinear")
        return torch.cat([self.weight[:, : self.num_prefix_tokens], as_tokens(resized)], dim=1)


class Stage(nn.Module):
    """Patch embedding, blocks, LayerNorm: a map (B, C', H', W') to tokens (B, N, C) and their map's size."""

    def __init__(self, config: PVTConfig, stage: int, drop_path_rates: list[float]) -> None:
        super().__init__()
        dim = config.embed_dims[stage]
        prefix = config.num_prefix_tokens(stage)
        self.patch_embed = build_patch_embed(config, stage)
        self.embeddings = nn.ModuleList()
        if prefix:
            self.embeddings.append(ClassToken(dim))
        if config.position_embedding == "learned":
            self.embeddings.append(PositionEmbedding(dim, config.stage_sizes(config.img_size)[stage], prefix))
        self.blocks = nn.ModuleList(Block(config, stage, rate) for rate in drop_path_rates)
        self.norm = nn.LayerNorm(dim, eps=1e-6) if config.has_stage_norm(stage) else nn.Identity()

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x, size = self.patch_embed(x)
        for layer in (*self.embeddings, *self.blocks):
            x = layer(x, size)
        return self.norm(x), size


class AveragePooling(nn.Module):
    """Rider `pooling="average"`: features are the last map (B, C, H, W), as in timm's PVT v2."""

    def features(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        return as_map(tokens, size)

    def forward(self, features: Tensor) -> Tensor:
        return features.mean(dim=(2, 3))


class ClassTokenPooling(nn.Module):
    """Rider `pooling="class_token"`: features are all tokens (B, 1 + N, C), as in timm's ViT."""

    def features(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        return tokens

    def forward(self, features: Tensor) -> Tensor:
        return features[:, 0]


class PVT(nn.Module):
    """A PVT with any setting of toggles and riders: pictures (B, in_chans, H, W) to logits (B, num_classes).

    H and W may be any sizes from `config.smallest_side` up; a smaller picture, or one with another number of
    channels, raises InputError.
    """

    def __init__(self, config: PVTConfig) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.ModuleList(Stage(config, i, rates) for i, rates in enumerate(config.drop_path_rates()))
        self.pooling = ClassTokenPooling() if config.pooling == "class_token" else AveragePooling()
        width = config.embed_dims[-1]
        self.head = nn.Linear(width, config.num_classes) if config.num_classes else nn.Identity()
        self.apply(self._init_weights)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Returns the last stage's output: its map (B, C, H, W), or with a class token its tokens (B, 1 + N, C)."""
        x = self._checked(x)
        for stage in self.stages:
            tokens, size = stage(x)
            x = as_map(tokens, size)
        return self.pooling.features(tokens, size)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Pools the features to (B, C) and, unless `pre_logits`, classifies them: (B, num_classes)."""
        x = self.pooling(features)
        return x if pre_logits else self.head(x)

    def forward_intermediates(
        self, x: Tensor, indices: int | list[int] | None = None, intermediates_only: bool = False
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Returns the stages' maps (B, C, H, W), with `forward_features`' output before them unless told otherwise.

        `indices` picks stages: a list of them (0 to 3, or from the end), or how many of the last; all four by default.
        Arguments and results are timm's.
        """
        wanted = _stage_indices(indices)
        x = self._checked(x)
        maps = []
        for stage in self.stages:
            tokens, size = stage(x)
            x = as_map(tokens, size)
            maps.append(x)
        picked = [maps[index] for index in wanted]
        return picked if intermediates_only else (self.pooling.features(tokens, size), picked)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the official recipe does not decay, beside the one-dimensional ones."""
        return {name for name, _ in self.named_parameters() if name.endswith("embeddings.0.token")}

    def _checked(self, x: Tensor) -> Tensor:
        least = self.config.smallest_side
        if x.dim() != 4 or x.shape[1] != self.config.in_chans or x.shape[2] < least or x.shape[3] < least:
            allowed = f"(B, {self.config.in_chans}, H, W) with H and W of {least} pixels or more"
            raise refuse("input shape", tuple(x.shape), allowed)
        # From here on every map is channels-last, so that maps and tokens are views of each other.
        return x.contiguous(memory_format=torch.channels_last)

    def _init_weights(self, module: nn.Module) -> None:
        # The released code cuts its normal distributions off at 100 standard deviations, which changes nothing; the
        # framework's function for that cannot run on fake tensors.
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, ClassToken):
            nn.init.normal_(module.token, std=0.02)
        elif isinstance(module, PositionEmbedding):
            nn.init.normal_(module.weight, std=0.02)
        elif isinstance(module, nn.Conv2d) and self.config.conv_init == "fan_out":
            fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _stage_indices(indices: int | list[int] | None) -> list[int]:
    stages = list(range(NUM_STAGES))
    if indices is None:
        return stages
    if isinstance(indices, int):
        if not 1 <= indices <= NUM_STAGES:
            raise refuse("indices", indices, f"1 to {NUM_STAGES} as a number of stages")
        return stages[-indices:]
    if not all(-NUM_STAGES <= index < NUM_STAGES for index in indices):
        raise refuse("indices", indices, f"{-NUM_STAGES} to {NUM_STAGES - 1} in a list of stages")
    return [stages[index] for index in indices]


def build_model(config: PVTConfig) -> PVT:
    """Returns the model of a config with fresh weights, on the current default device and in training mode."""
    return PVT(config)
