"""Operators on the `meta` device, where tensors have shapes and no numbers.

Working out shapes takes most of a step's time there, and blocks repeat:
an operator that ran on such arguments before does not run again.
"""

from collections.abc import Callable, Hashable, Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

MOST_RESULTS = 10_000
"""How many results of operators are kept at most, which take about 13 MB. A model has some hundreds at each size."""

RESULTS: dict[Hashable, tuple[type, list[tuple | None]]] = {}
"""What operators returned by their arguments: the kind of result, and shape, strides and dtype of each tensor in it."""


def run_on_meta(
    operator: torch._ops.OpOverload, args: Any, kwargs: Any, lay_out: Callable[[Any, Any], Any] | None = None
) -> Any:
    """Returns an operator's result, without running it if that can be.

    `lay_out` makes of the arguments and the result on `meta` what another device would return.
    """
    if operator.is_view:
        return operator(*args, **kwargs)
    if operator._schema.is_mutable:
        if _changes_numbers_only(operator) and all(tensor.is_meta for tensor in tensors_in(args[0])):
            return args[0] if operator._schema.returns else None
        return operator(*args, **kwargs)
    call = (operator, lay_out, _signature(args), _signature(kwargs))
    if call in RESULTS:
        kind, layouts = RESULTS[call]
        empty = [layout and torch.empty_strided(*layout[:2], dtype=layout[2], device="meta") for layout in layouts]
        return empty[0] if kind is Tensor else kind(empty)
    result = operator(*args, **kwargs)
    given = tensors_in((args, kwargs))
    if lay_out and all(tensor.is_meta for tensor in given):
        result = lay_out(args, result)
    parts = list(result) if isinstance(result, tuple | list) else [result]
    if _are_new(parts, given):
        if len(RESULTS) == MOST_RESULTS:
            RESULTS.clear()
        layouts = [None if part is None else (part.shape, part.stride(), part.dtype) for part in parts]
        RESULTS[call] = type(result) if isinstance(result, tuple | list) else Tensor, layouts
    return result


def tensors_in(values: Any) -> list[Tensor]:
    """Returns the tensors among arguments or results, however these are nested."""
    if isinstance(values, Tensor):  # nearly always, and looking into other things takes its time
        return [values]
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _signature(value: Any) -> Hashable:
    """Returns what the shape of a result on `meta` can depend on, of an operator's argument or arguments."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    if isinstance(value, tuple | list):
        return tuple(map(_signature, value))
    if isinstance(value, dict):
        return tuple((name, _signature(each)) for name, each in value.items())
    return type(value), value  # 1 and 1.0 make different results


def _are_new(parts: Iterable[Any], given: list[Tensor]) -> bool:
    """Whether an operator's results are tensors of memory of their own, of which numbers did not decide the shape."""
    storages = {id(tensor.untyped_storage()) for tensor in given}  # `_unsafe_view` shares it and does not say so
    return all(tensor.is_meta for tensor in given) and all(
        part is None or (isinstance(part, Tensor) and part.is_meta and id(part.untyped_storage()) not in storages)
        for part in parts
    )


@cache
def _changes_numbers_only(operator: torch._ops.OpOverload) -> bool:
    """Whether an operator changes its first argument in place, in numbers only, and returns that or nothing.

    On `meta` there is nothing to change then, and to work out that nothing changes takes long.
    """
    name, schema = operator.overloadpacket.__name__, operator._schema
    changed = [argument.alias_info is not None and argument.alias_info.is_write for argument in schema.arguments]
    return (
        (name.endswith("_") or name.startswith("_foreach_"))
        and torch.Tag.inplace_view not in operator.tags
        and name not in ("resize_", "resize_as_", "set_")
        and changed.index(True) == 0
        and sum(changed) == 1
        and len(schema.returns) <= 1
    )
