"""The kinds that time is divided into, by operator, and peak memory, by what its bytes are for. Needs no torch."""

from collections.abc import Sequence
from typing import Any

FIXED_KINDS = ("parameters", "gradients", "optimizer", "input")
"""The kinds of bytes that do not grow with the resolution, or are given with it; the rest of the peak grows."""

BYTE_KINDS = (*FIXED_KINDS, "activations", "temporaries")
"""What bytes are for. Buffers are among the parameters; activations are what the forward pass keeps for backward."""

OPERATORS = {
    "matrix products": "mm addmm bmm baddbmm mv addmv _addmm_activation",
    "convolutions": """
        convolution _convolution convolution_backward mkldnn_convolution cudnn_convolution _nnpack_spatial_convolution
        _slow_conv2d_forward _slow_conv2d_backward thnn_conv2d _conv_depthwise2d
    """,
    "depth-wise convolutions": "",  # the same names; the shapes tell
    "attention": """
        _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention_for_cpu_backward
        _scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_backward
        _scaled_dot_product_efficient_attention _scaled_dot_product_efficient_attention_backward
        _scaled_dot_product_cudnn_attention _scaled_dot_product_cudnn_attention_backward
        _scaled_dot_product_fused_attention_overrideable _scaled_dot_product_fused_attention_overrideable_backward
        _flash_attention_forward _flash_attention_backward _efficient_attention_forward _efficient_attention_backward
        _cudnn_attention_forward _cudnn_attention_backward _softmax _safe_softmax _softmax_backward_data
    """,
    "normalisation": """
        native_layer_norm native_layer_norm_backward native_batch_norm native_batch_norm_backward cudnn_batch_norm
        cudnn_batch_norm_backward _native_batch_norm_legit _native_batch_norm_legit_no_training native_group_norm
        native_group_norm_backward
    """,
    "activations": """
        gelu gelu_backward relu relu_ clamp_min clamp_min_ threshold_backward silu silu_ silu_backward hardswish
        hardswish_ hardswish_backward sigmoid sigmoid_backward
    """,
    "additions and sums": """
        add add_ sum mean _adaptive_avg_pool2d _adaptive_avg_pool2d_backward avg_pool2d avg_pool2d_backward
    """,
    "copies": "copy_ clone contiguous _to_copy cat stack slice_backward select_backward",
    "optimizer": "_fused_adamw_ _fused_adam_ _foreach_add_",
    "other": "",
}
"""The `aten` operators of each kind, in the kinds' order. All others are `other`: views, allocation, scaling, the loss.
Average pools are sums."""

OPERATOR_KINDS = tuple(OPERATORS)

_KIND_OF = {name: kind for kind, names in OPERATORS.items() for name in names.split()}


def kind_of(operator: str, shapes: Sequence[Any] = ()) -> str:
    """Returns one of OPERATOR_KINDS for an `aten` operator's name.

    `shapes` are those of its arguments, empty for what is none. A convolution whose filters (C, 1, h, w) see one
    channel each of several is depth-wise.
    """
    kind = _KIND_OF.get(operator, "other")
    if kind == "convolutions":
        first = int(operator.endswith("_backward"))  # the gradient stands before the input
        images, weight = [*shapes[first : first + 2], (), ()][:2]
        if len(images) == len(weight) > 2 and weight[1] == 1 < images[1]:
            return "depth-wise convolutions"
    return kind
