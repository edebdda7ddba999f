"""A layer of torch's, computed in another order where that is faster."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """A linear layer that on a CPU adds its bias to the finished product: (..., in_features) to (..., out_features).

    In float32 torch copies the bias into every row first, for the product to be added to, which takes longer at
    inference; in training the difference is not resolved (`results/LOG.md`). Everywhere else the layer is torch's.
    """

    def forward(self, x: Tensor) -> Tensor:
        copies_bias = x.is_cpu and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        if self.bias is None or not copies_bias:
            return super().forward(x)
        return F.linear(x, self.weight).add_(self.bias)
