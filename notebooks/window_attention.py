"""Slot `attn`: every token attends to the tokens of its own window of 4 x 4 (Liu et al. 2021, without the shift).

python run_ablation.py run quick --toggles ope cffn notebooks/window_attention.py:window
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ablations.config import PVTConfig
from ablations.model.attention import Attention
from ablations.model.tokens import with_prefix_of
from ablations.toggle_files import NewToggle

SIDE = 4  # tokens


class WindowAttention(nn.Module):
    """Attention within windows: tokens (B, prefix + N, dim) to tokens; a class token passes by."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool, kernel: str, num_prefix_tokens: int) -> None:
        super().__init__()
        self.num_prefix_tokens = num_prefix_tokens
        self.attention = Attention(dim, num_heads, qkv_bias, kernel)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        height, width = size
        feature_map = x[:, self.num_prefix_tokens :].unflatten(1, size)  # B, H, W, C
        # Zeros fill the last windows where the map has no whole one.
        padded = F.pad(feature_map, (0, 0, 0, -width % SIDE, 0, -height % SIDE))
        rows, columns = padded.shape[1] // SIDE, padded.shape[2] // SIDE
        windows = padded.unflatten(2, (columns, SIDE)).unflatten(1, (rows, SIDE)).transpose(2, 3)
        out = self.attention(windows.flatten(3, 4).flatten(0, 2), (SIDE, SIDE))  # B * rows * columns, SIDE * SIDE, C
        out = out.unflatten(1, (SIDE, SIDE)).unflatten(0, (x.shape[0], rows, columns)).transpose(2, 3)
        out = out.flatten(3, 4).flatten(1, 2)[:, :height, :width]  # B, H, W, C
        return with_prefix_of(out.flatten(1, 2), x, self.num_prefix_tokens)


def build_window_attention(config: PVTConfig, stage: int) -> WindowAttention:
    return WindowAttention(
        config.embed_dims[stage],
        config.num_heads[stage],
        config.qkv_bias,
        config.attention,
        config.num_prefix_tokens(stage),
    )


window = NewToggle(name="window", title="Window attention", slot="attn", build=build_window_attention)
