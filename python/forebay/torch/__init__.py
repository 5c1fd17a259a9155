"""PyTorch's `DataLoader` with Forebay's engine: change the import, nothing else.

Example:
    >>> from forebay.torch import DataLoader
    >>> loader = DataLoader([1, 2, 3], batch_size=3)
    >>> next(iter(loader))
    tensor([1, 2, 3])
"""

from forebay.torch._loader import DataLoader
from forebay.torch._wrap import wrap

__all__ = ["DataLoader", "wrap"]
