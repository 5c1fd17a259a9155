"""What a program trained on, in one line: equal lines mean the same batches, bit for bit, and the same loss.

Programs call `observe` with each batch and `finish` at their end. With FORBID_TORCH_WORKERS=1 in the environment no
worker of torch's own loader gets to work, so a program that ends was served by somebody else.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data._utils import worker as torch_worker

_digest = hashlib.sha256()
_batches = 0


def observe(batch: Any) -> Any:
    """Adds a batch to what this process has trained on, and returns it."""
    global _batches  # noqa: PLW0603 - one process, one record
    for piece in _pieces(batch):
        _digest.update(len(piece).to_bytes(8, "little") + piece)
    _batches += 1
    return batch


def finish(loss: torch.Tensor | float) -> None:
    """Prints the line that the test reads."""
    seen = {
        "rank": int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))),
        "batches": _batches,
        "digest": _digest.hexdigest(),
        "loss": float(torch.as_tensor(loss).detach()).hex(),
    }
    # In one write: processes of one program share this stream.
    os.write(1, f"seen {json.dumps(seen)}\n".encode())


def _pieces(batch: Any) -> Iterator[bytes]:
    """Everything that makes a batch what it is, in order."""
    yield f"{type(batch).__module__}.{type(batch).__qualname__}".encode()
    if isinstance(batch, torch.Tensor):
        yield f"{batch.dtype} {tuple(batch.shape)} {batch.stride()}".encode()
        yield batch.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    elif isinstance(batch, np.ndarray):
        yield f"{batch.dtype} {batch.shape} {batch.strides}".encode()
        yield batch.tobytes()
    elif batch is None or isinstance(batch, (str, bytes, int, float)):
        yield repr(batch).encode()
    elif isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from _pieces(key)
            yield from _pieces(value)
    elif isinstance(batch, (list, tuple)):
        yield str(len(batch)).encode()
        for value in batch:
            yield from _pieces(value)
    elif dataclasses.is_dataclass(batch):
        for field in dataclasses.fields(batch):
            yield from _pieces(getattr(batch, field.name))
    else:
        raise TypeError(f"observe() does not know how to compare a {type(batch).__qualname__}")


def _refuse(*_: object) -> None:
    raise AssertionError("a worker of torch's own loader was started")


if os.environ.get("FORBID_TORCH_WORKERS") == "1":
    torch_worker._worker_loop = _refuse
