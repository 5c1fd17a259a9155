"""What the engine must know about torch, and what torch code expects in a worker."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate
from torch.utils.data._utils import collate as torch_collate
from torch.utils.data._utils import signal_handling
from torch.utils.data._utils import worker as torch_worker

from forebay import _ledger, _seeds, dataset
from forebay._engine import Front
from forebay._front import DTYPES
from forebay._worker import Assignment, Prepared
from forebay.torch import _pickling
from forebay.torch._gather import Gather
from forebay.torch._registry import STOCK_REGISTRY

__all__ = ["make_front", "prepare"]

_DEVICE_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dri", "/dev/dxg", "/dev/accel")
"""What the drivers of NVIDIA, AMD, Intel, Windows' subsystem and accelerators show."""
_MOST_GATHERED_ROW_BYTES = 8 * 1024
"""A gathered batch is copied into its slot, where larger samples are collated without that copy, which then costs more
than looking them up one by one."""


def make_front() -> Front:
    """The torch front: arrays and tensors in, tensors out."""
    return Front(
        ndarray=np.ndarray,
        memmap=np.memmap,
        dtypes=DTYPES,
        dump=_pickling.dump,
        load=_pickling.load,
        collate=default_collate,
        stack=_stack,
        tensor=torch.Tensor,
        byte_dtypes=[torch.uint8, torch.int8],
    )


def _stack(samples: Sequence[Any], out: Any) -> None:
    """Stacks tensors or arrays of any strides into `out`."""
    if isinstance(out, torch.Tensor):
        torch.stack(list(samples), 0, out=out)
    else:
        np.stack(samples, out=out)


def prepare(assignment: Assignment) -> Prepared:
    """Makes a process what torch code expects of a worker: its threads, seeds and worker info."""
    _ledger.silence()
    signal_handling._set_worker_signal_handlers()  # type: ignore[attr-defined]
    torch.multiprocessing._set_thread_name("pt_data_worker")
    torch.set_num_threads(1)
    seed = _seeds.worker_seed(assignment.base_seed, assignment.worker_id)
    random.seed(seed)
    _seed_torch(seed)
    np.random.seed(_seeds.numpy_state(assignment.base_seed, assignment.worker_id))
    _tell(assignment, assignment.epoch)
    registry = torch_collate.default_collate_fn_map
    if registry.get(torch.Tensor) is torch_collate.collate_tensor_fn:
        registry[torch.Tensor] = _stack_on_the_heap
    return Prepared(
        make_front(),
        collates_natively=lambda: _collates_as_stock(assignment),
        gather=Gather(_MOST_GATHERED_ROW_BYTES),
        tell_epoch=lambda epoch: _tell(assignment, epoch),
    )


class _SeededWorkerInfo(torch_worker.WorkerInfo):
    """Torch's, and the number of the epoch. Without a seed there is no more than torch has."""

    epoch: int = 0


def _tell(assignment: Assignment, epoch: int) -> None:
    """Sets what `get_worker_info` returns, torch's and Forebay's own."""
    worker_id, num_workers, told = assignment.worker_id, assignment.num_workers, assignment.dataset
    seed = _seeds.worker_seed(assignment.base_seed, worker_id)
    kind = torch_worker.WorkerInfo if assignment.seed is None else _SeededWorkerInfo
    info = kind(id=worker_id, num_workers=num_workers, seed=seed, dataset=told)
    if isinstance(info, _SeededWorkerInfo):
        object.__setattr__(info, "epoch", epoch)  # torch's are frozen
    torch_worker._worker_info = info
    dataset.set_worker_info(dataset.WorkerInfo(worker_id, num_workers, seed, told, epoch))


def _seed_torch(seed: int) -> None:
    """Does what `torch.manual_seed` does.

    That also notes the seed for devices that may be initialised later, and formats a stack for each note: several
    milliseconds of page faults in a fresh fork. Without any device's file there is no such later.
    """
    if any(Path(name).exists() for name in _DEVICE_FILES) or _has_private_device():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def _has_private_device() -> bool:
    """Whether somebody has registered a kind of device of his own."""
    return bool(torch._C._get_privateuse1_backend_name() != "privateuseone")


def _stack_on_the_heap(batch: Any, *, collate_fn_map: Any = None) -> Any:
    """Stacks tensors as torch's own function does in a worker, but in ordinary memory.

    Torch would make a file in shared memory for every batch, which nobody here would ever read.
    """
    if not all(type(sample) is torch.Tensor and _pickling.is_plain(sample) for sample in batch):
        return torch_collate.collate_tensor_fn(batch, collate_fn_map=collate_fn_map)
    first = batch[0]
    return torch.stack(batch, 0, out=first.new_empty((len(batch), *first.size())))


def _collates_as_stock(assignment: Assignment) -> bool:
    """Whether the engine may collate: torch's own function, with the registry as torch made it."""
    registry = torch_collate.default_collate_fn_map
    mine = {**STOCK_REGISTRY, torch.Tensor: _stack_on_the_heap}
    return assignment.collate_fn is default_collate and registry in (STOCK_REGISTRY, mine)
