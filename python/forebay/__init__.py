"""Forebay keeps an accelerator fed: PyTorch's `DataLoader` for NumPy, with a Rust engine.

`forebay.torch` has the same for torch.
"""

from forebay._configuration import configure
from forebay._install import install, uninstall
from forebay._sample_rng import sample_rng
from forebay._suggested_workers import suggested_num_workers
from forebay.collate import default_collate, default_collate_fn_map, default_convert
from forebay.dataset import Dataset, IterableDataset, Subset, WorkerInfo, get_worker_info
from forebay.errors import ForebayError
from forebay.loader import DataLoader
from forebay.sampler import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

__all__ = [
    "BatchSampler",
    "DataLoader",
    "Dataset",
    "DistributedSampler",
    "ForebayError",
    "IterableDataset",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "Subset",
    "SubsetRandomSampler",
    "WeightedRandomSampler",
    "WorkerInfo",
    "configure",
    "default_collate",
    "default_collate_fn_map",
    "default_convert",
    "get_worker_info",
    "install",
    "sample_rng",
    "suggested_num_workers",
    "uninstall",
]
