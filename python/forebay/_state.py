"""The epochs of the NumPy front's loader, and its state.

With a seed a state is a place in an order, else what the order is drawn from.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, cast

from forebay import _resume
from forebay._cursor import Cursor
from forebay._drawn import DrawnEpoch, Streams
from forebay._resume import Resume, State, check_workers, resume_in, taken_by, warn_of_skipping
from forebay._seeding import announce, index_sampler_of
from forebay._seeds import checked_epoch
from forebay.errors import StateError

__all__ = ["Epoch", "Resume", "begin_epoch", "length_of_epoch", "loaded", "set_epoch", "state_of"]


class Epoch(Protocol):
    """One epoch of a loader: what is to be made, and how much of it has been delivered.

    Attributes:
        seed: of the loader; None if it has none.
        epoch: its number.
        cursor: the batches that have been delivered.
        base_seed: the seed of its workers.
        gives_places: whether batches' indices come as arrays.
        fetcher: without workers, what reads the stream.
    """

    @property
    def seed(self) -> int | None: ...
    @property
    def epoch(self) -> int: ...
    @property
    def cursor(self) -> Cursor: ...
    @property
    def base_seed(self) -> int: ...
    @property
    def gives_places(self) -> bool: ...
    def __len__(self) -> int: ...
    def batches(self) -> Iterator[Any]: ...
    def first_worker(self, num_workers: int, /) -> int: ...
    def watch(self, fetcher: Any) -> None: ...
    def where(self) -> State: ...


def begin_epoch(loader: Any, *, with_new_workers: bool = True) -> Epoch:
    """The epoch that `iter(loader)` begins: the next one, or the rest of the one whose state was loaded."""
    resume = loader._resume
    if resume is not None:
        check_workers(resume, loader.num_workers)
        if loader.stream and resume.in_epoch:
            warn_of_skipping(resume.held)
    if loader._seeding is not None:
        from forebay._course import open_course  # needs the engine, which not every system has

        epoch: Epoch = open_course(loader, loader._seeding, resume, stream=loader.stream)
    else:
        number, loader._next_epoch = loader._next_epoch, loader._next_epoch + 1
        epoch = DrawnEpoch(loader, number, seed_workers=with_new_workers, resume=resume)
    loader._epoch, loader._resume = epoch, None
    return epoch


def length_of_epoch(loader: Any) -> int:
    """The number of batches of a whole epoch."""
    if loader._seeding is None:
        return len(index_sampler_of(loader))
    from forebay._course import Course

    return len(Course(loader, loader._seeding, loader._seeding.next_epoch))


def set_epoch(loader: Any, epoch: int) -> None:
    """Says which epoch the next `iter()` begins."""
    loader._resume = resume_in(epoch, loader._resume)
    if loader._seeding is not None:
        loader._seeding.announce(loader, epoch)
    else:
        loader._next_epoch = checked_epoch(epoch)
        announce(loader, epoch)


def state_of(loader: Any) -> State:
    """The state of a loader: of its latest epoch, or the one that was loaded and waits for `iter()`."""
    if loader._resume is not None:
        waiting: State = copy.deepcopy(loader._resume.state)
        return waiting
    state = _resume.describe(loader._epoch, loader)
    if loader._seeding is None and not state["in_epoch"]:
        state["order"] = Streams(loader).state()
    return state


def loaded(loader: Any, state: Any, *, strict: bool) -> Resume:
    """Checks a state that is to be loaded into `loader`.

    Raises:
        StateError: it is no state, damaged, of a later version, or of another kind of loader.
    """
    found: Mapping[str, Any] = cast("Mapping[str, Any]", state) if isinstance(state, Mapping) else {}
    if "forebay" in found:
        raise taken_by("forebay.torch.DataLoader")
    version = found.get("version")
    if type(version) is not int or version < 1:
        raise StateError(f"this is not the state of a loader, as state_dict() gives it: {state!r:.200}")
    _resume.check_version(version)
    resume = _resume.read(loader, found, copy.deepcopy(dict(found)), strict=strict)
    if loader._seeding is None:
        Streams(loader).check(resume.order)
        loader._next_epoch = resume.epoch
    else:
        loader._seeding.announce(loader, resume.epoch)
    return resume
