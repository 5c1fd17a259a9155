"""Arguments that a loader cannot work with, and those that look as if it could not."""

import os
import re
import warnings
from typing import Any

import numpy as np
import torch
from observing import PYTORCH, Face, Input, Section, Unobservable, plain
from rows_data import NAMED, Squares, stream


def _made(title: str, numpy: bool = True, reason: str = "", numpy_reason: str = "", **options: Any) -> Input:
    """A loader of five squares that gets `options`."""
    return Input(title, lambda face: face(Squares(), **options), numpy, reason=reason, numpy_reason=numpy_reason)


def _streamed(title: str, **options: Any) -> Input:
    return Input(title, lambda face: face(stream(face, lambda _: iter(range(3))), **options))


def _too_many(face: Face) -> str:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        face(Squares(), num_workers=len(os.sched_getaffinity(0)) + 1)
    return "; ".join(f"warns `{re.sub('[0-9]+', 'N', plain(str(warning.message)))}`" for warning in caught)


def _set_later(name: str, value: Any, reason: str = "") -> Input:
    def given(face: Face) -> Any:
        loader = face(Squares(), batch_size=2)
        setattr(loader, name, value)
        return loader

    return Input(
        f"`loader.{name} = {getattr(value, '__name__', repr(value))}` after construction",
        given,
        reason=reason,
        numpy_reason=reason,
    )


def _workers_later(face: Face) -> Any:
    loader = face(Squares(), batch_size=2, num_workers=0)
    loader.num_workers = 2
    return loader


def _sorted(face: Face) -> str:
    return f"{sorted(int(batch[0]) for batch in face(Squares(), shuffle='yes'))}, in some order"


def _nothing(face: Face) -> Any:
    return face.DataLoader()


def _pinning(face: Face) -> Any:
    if torch.accelerator.is_available():
        raise Unobservable("there is an accelerator here")
    return face(Squares(), batch_size=5, pin_memory=True)


def _unknown(face: Face) -> Any:
    return face(Squares(), colour="red")


def _budget(value: Any) -> Input:
    def given(face: Face) -> Any:
        return face(Squares(), batch_size=5, **({} if face.name == PYTORCH else {"memory_budget": value}))

    why = "PyTorch has no such argument"
    return Input(f"`memory_budget={value!r}`", given, reason=why, numpy_reason=why)


SAYS = {"reason": NAMED, "numpy_reason": NAMED}
LATER = "refused by its name, as at construction"
FOREVER = "waits for ever"
DEFAULT = "with the default prefetch_factor"
TOO_EARLY = "refused at construction, not at iter()"

ARGUMENTS = [
    _made("`num_workers=-1`", num_workers=-1),
    _made("`num_workers=1.5`", num_workers=1.5, **SAYS),
    _made('`num_workers="2"`', num_workers="2", **SAYS),
    _made("`num_workers=None`", num_workers=None, **SAYS),
    _made("`num_workers=True`", num_workers=True, batch_size=5),
    Input("more workers than processors", _too_many),
    _made("`batch_size=0`", batch_size=0),
    _made("`batch_size=-1`", batch_size=-1),
    _made("`batch_size=2.0`", batch_size=2.0),
    _made('`batch_size="2"`', batch_size="2"),
    _made("`batch_size=True`", batch_size=True),
    _made("`batch_size=np.int64(2)`", batch_size=np.int64(2)),
    _made("`batch_size` larger than the dataset", batch_size=100),
    _made("`batch_size=None`, `drop_last=True`", batch_size=None, drop_last=True),
    _made('`drop_last="no"`', drop_last="no"),
    _made("`drop_last=1`", drop_last=1),
    _made("`timeout=-1`", timeout=-1),
    _made('`timeout="5"`', timeout="5", **SAYS),
    _made("`timeout=None`", timeout=None, **SAYS),
    _made("`timeout=5`, no workers", timeout=5, num_workers=0, numpy_reason="a ValueError that says why"),
    _made("`timeout=inf`", timeout=float("inf"), batch_size=5, reason=FOREVER, numpy_reason=FOREVER),
    _made("`timeout=nan`", timeout=float("nan"), batch_size=5, numpy_reason=NAMED),
    _made("`prefetch_factor=2`, no workers", prefetch_factor=2, num_workers=0),
    _made("`prefetch_factor=0`", prefetch_factor=0, reason=TOO_EARLY, numpy_reason=TOO_EARLY),
    _made("`prefetch_factor=-1`", prefetch_factor=-1),
    _made("`prefetch_factor=1.5`", prefetch_factor=1.5, batch_size=5, **SAYS),
    _made('`prefetch_factor="2"`', prefetch_factor="2", **SAYS),
    _made("`persistent_workers=True`, no workers", persistent_workers=True, num_workers=0),
    _made("`multiprocessing_context`, no workers", multiprocessing_context="fork", num_workers=0),
    _made('`multiprocessing_context="thread"`', multiprocessing_context="thread"),
    _made("`multiprocessing_context=5`", multiprocessing_context=5),
    _made("`sampler` and `shuffle`", sampler=[1, 2], shuffle=True),
    _made("`sampler` and `shuffle=3`", sampler=[1, 2], shuffle=3),
    _made("`sampler` and `shuffle=False`", sampler=[1, 2], shuffle=False, batch_size=2),
    _made("`batch_sampler` and `batch_size=2`", batch_sampler=[[1]], batch_size=2),
    _made("`batch_sampler` and `batch_size=1`", batch_sampler=[[1]], batch_size=1),
    _made("`batch_sampler` and `shuffle`", batch_sampler=[[1]], shuffle=True),
    _made("`batch_sampler` and `sampler`", batch_sampler=[[1]], sampler=[1]),
    _made("`batch_sampler` and `drop_last`", batch_sampler=[[1]], drop_last=True),
    _made("`batch_sampler` and `batch_size=None`", batch_sampler=[[1]], batch_size=None),
    _streamed("an iterable dataset and `shuffle=True`", shuffle=True),
    _streamed("… and `sampler`", sampler=[1, 2]),
    _streamed("… and `batch_sampler`", batch_sampler=[[1, 2]]),
    Input('`shuffle="yes"`', _sorted),
    _made('`in_order="no"`', in_order="no", batch_size=5),
    _made('`persistent_workers="yes"`, no workers', persistent_workers="yes", num_workers=0),
    _made("`collate_fn=5`", collate_fn=5, **SAYS),
    _made("`worker_init_fn=5`", worker_init_fn=5, **SAYS),
    _made("`generator=5`", generator=5, reason=NAMED, numpy_reason="a seed is a generator here"),
    _made('`generator="x"`', generator="x", **SAYS),
    _made(
        "`generator=` NumPy's",
        generator=np.random.default_rng(1),
        shuffle=True,
        reason=NAMED,
        numpy_reason="it is the kind taken here",
    ),
    Input("`pin_memory=True` without an accelerator", _pinning, numpy=False),
    _made('`pin_memory_device="cuda"` without `pin_memory`', numpy=False, pin_memory_device="cuda", batch_size=5),
    _budget(0),
    _budget(-1),
    _budget("1G"),
    _budget(1.5),
    _budget(True),
    _budget(1000),
    Input("an argument that nobody knows", _unknown),
    Input("no argument at all", _nothing),
    _set_later("batch_size", 3),
    _set_later("sampler", [1]),
    _set_later("dataset", [1]),
    _set_later("drop_last", True),
    _set_later("num_workers", 0),
    _set_later("num_workers", -1, LATER),
    _set_later("num_workers", 1.5, LATER),
    _set_later("num_workers", "2", LATER),
    _set_later("num_workers", None, LATER),
    Input("`loader.num_workers = 2` where there were none", _workers_later, reason=DEFAULT, numpy_reason=DEFAULT),
    _set_later("prefetch_factor", 0, LATER),
    _set_later("prefetch_factor", -1, LATER),
    _set_later("timeout", -1),
    _set_later("timeout", "5", LATER),
    _set_later("worker_init_fn", 5, LATER),
    _set_later("multiprocessing_context", "thread"),
    _set_later("collate_fn", list),
]

SECTIONS = [
    Section("Arguments", "A loader of the squares of 0 to 4, with one worker where nothing else is said.", ARGUMENTS),
]
