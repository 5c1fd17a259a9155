"""Warnings for the caller of a loader: they point at the loop, not at the loader's own lines."""

import inspect
import warnings

from forebay.errors import EpochCutShortWarning

__all__ = ["users_level", "warn_of_early_end"]


def users_level() -> int:
    """The `stacklevel`, for a warning of the caller, of the first frame that is neither ours nor torch's loader's."""
    ours = ("forebay.", "torch.utils.data.")
    level, frame = 0, inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__")).startswith(ours):
        level, frame = level + 1, frame.f_back
    return level


def warn_of_early_end(index: str | None, where: str = "") -> None:
    """Warns that a `StopIteration` of the user's code is about to end a loop over the loader."""
    what = "the dataset or collate_fn" if index is None else f"the dataset, asked for index {index},"
    warnings.warn(
        f"{what} raised StopIteration{where}: a loop over the loader ends there, as with PyTorch's, as if the epoch "
        "were complete. If the dataset has no more samples, let its __len__ say so; else raise another exception "
        "(next() on an iterator that is exhausted raises StopIteration).",
        EpochCutShortWarning,
        stacklevel=users_level(),
    )
