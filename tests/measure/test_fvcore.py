"""A third opinion on multiply-adds: fvcore's, operator by operator, on real tensors with explicit attention."""

import logging
import warnings

import pytest
import torch

from ablations.config import ARMS, FRAMES, build_config
from ablations.cost import count_macs
from ablations.model import build_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # importing it scripts a function, which torch has given up
    from fvcore.nn import FlopCountAnalysis

PRODUCTS = {"conv", "linear", "matmul", "addmm", "bmm", "einsum"}
OTHERS = {"layer_norm", "adaptive_avg_pool2d", "upsample_bilinear2d"}
"""What fvcore counts beside products, and this project does not."""


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("arm", ARMS)
def test_fvcore_counts_the_same_products(arm, frame):
    logging.getLogger("fvcore").setLevel(logging.ERROR)  # it lists the operators that it takes for free
    config = build_config("pico", arm, frame, attention="explicit")
    analysis = FlopCountAnalysis(build_model(config).eval(), torch.zeros(1, 3, 64, 48))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of every shape that Python reads
        counts = analysis.by_operator()
    assert set(counts) <= PRODUCTS | OTHERS
    assert sum(counts[name] for name in PRODUCTS) == count_macs(config, (64, 48))
