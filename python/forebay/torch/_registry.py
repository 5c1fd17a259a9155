"""How torch itself collates, and whether users have changed that."""

from typing import Any

import numpy as np
import torch
from torch.utils.data._utils import collate as torch_collate

__all__ = ["STOCK_REGISTRY", "is_stock_registry", "is_watched"]

STOCK_REGISTRY: dict[Any, Any] = {
    torch.Tensor: torch_collate.collate_tensor_fn,
    np.ndarray: torch_collate.collate_numpy_array_fn,
    (np.bool_, np.number, np.object_): torch_collate.collate_numpy_scalar_fn,
    float: torch_collate.collate_float_fn,
    int: torch_collate.collate_int_fn,
    str: torch_collate.collate_str_fn,
    bytes: torch_collate.collate_str_fn,
}
"""Written out, because users may have changed the registry before this is imported; should another version of torch
have another one, batches are collated by torch."""


def is_stock_registry() -> bool:
    """Whether `default_collate` does what it did when torch was imported."""
    return bool(torch_collate.default_collate_fn_map == STOCK_REGISTRY)


def is_watched() -> bool:
    """Whether somebody sees, or changes, every call of torch: with a default device, for example."""
    return bool(torch._C._len_torch_function_stack() or torch._C._len_torch_dispatch_stack())
