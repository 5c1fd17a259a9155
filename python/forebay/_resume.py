"""A loader's state: what both fronts have in common. A few numbers, whatever the length of the dataset.

It is told after any batch. With a seed, a loader with another number of workers, another batch size or another number
of ranks can go on from it.
"""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeAlias, cast

from forebay._callers import users_level
from forebay._cursor import Cursor, Standing
from forebay._seeding import cuts_evenly, index_sampler_of
from forebay._seeds import checked_epoch
from forebay._stateful import Held, held_as, standing_of, tell, tell_of
from forebay.dataset import is_stream
from forebay.errors import StateError, StateWarning

__all__ = ["VERSION", "Range", "Resume", "State", "check_rank", "check_version", "check_workers", "damaged"]
__all__ += [
    "describe",
    "fingerprint",
    "misfit",
    "misfit_of_kind",
    "read",
    "resume_in",
    "taken_by",
    "turn_after",
    "warn_of_skipping",
]

State: TypeAlias = dict[str, Any]
Range: TypeAlias = tuple[int, int]
"""A first number, and the one after the last."""

VERSION = 2
"""Of the format. Version 1 has no seed, and is the torch front's."""


@dataclass(frozen=True, slots=True)
class Resume:
    """A loaded state, checked, that waits for the next `iter()`.

    Attributes:
        state: as it was loaded.
        epoch: the number of the epoch that goes on, or of the next one.
        in_epoch: whether it goes on in its middle.
        start: the place in its order.
        passed: of this rank's samples, counted from there, ranges that have been delivered.
        dealt_to: if it fits one rank alone: that one, and of how many.
        batches: how many batches had been delivered.
        held: what each worker's dataset told (without workers, the only one's).
        num_workers: of the loader that it was taken of.
        last_worker: who made the last delivered batch of a stream.
        order: without a seed, what the generators were when the epoch began.
        base_seed: without a seed, that of the workers which go on.
    """

    state: State
    epoch: int
    in_epoch: bool
    start: int = 0
    passed: tuple[Range, ...] = ()
    dealt_to: tuple[int, int] | None = None
    batches: int = 0
    held: list[Held] = field(default_factory=list[Held])
    num_workers: int = 0
    last_worker: int | None = None
    order: State | None = None
    base_seed: int | None = None

    def standings(self) -> dict[int, Standing]:
        """How far the workers were."""
        return {worker: standing_of(held) for worker, held in enumerate(self.held)}


def turn_after(cursor: Cursor, num_workers: int) -> int:
    """The worker whose turn it is in an epoch over a stream."""
    return 0 if cursor.last_worker is None else (cursor.last_worker + 1) % num_workers


def describe(epoch: Any, loader: Any) -> State:
    """A loader's state, for JSON.

    Args:
        epoch: its latest, or None before the first.
        loader: of either front.
    """
    state: State = {"version": VERSION, "seed": _seed_of(loader)}
    state |= {"fingerprint": fingerprint(loader), "num_workers": int(loader.num_workers)}
    held = _held_of(epoch, loader)
    if held:
        state["workers"] = held
    if epoch is None or epoch.cursor.finished:
        return state | {"epoch": _next_epoch(loader), "in_epoch": False}
    return state | {"epoch": epoch.epoch, "in_epoch": True, **epoch.where()}


def fingerprint(loader: Any) -> State:
    """What determines the order: another loader must have it in common to go on in the middle of an epoch."""
    found: State = {"dataset_length": _length(loader.dataset)}
    if loader._seeding is None:
        found["batch_size"] = loader.batch_size  # what was delivered is counted in batches
    sampler = index_sampler_of(loader)
    if loader.batch_sampler is not None and cuts_evenly(sampler):
        sampler = sampler.sampler
    own = getattr(sampler, "fingerprint", None)
    found["sampler"] = own() if callable(own) else type(sampler).__qualname__
    return found


def _length(sized: Any) -> int | None:
    try:
        return len(sized)
    except Exception:  # noqa: BLE001 - a dataset may have no length in any way it likes
        return None


def read(loader: Any, state: Mapping[str, Any], raw: State, *, strict: bool) -> Resume:
    """Checks the part of a state that both fronts have in common.

    Args:
        loader: that is to go on.
        state: that part.
        raw: the whole, to be told again until the epoch begins.
        strict: whether a state of another kind of loader is refused.

    Raises:
        StateError: it is damaged, of a later version, or of another kind of loader.
    """
    try:
        resume = _read(state, raw)
        if resume.in_epoch and is_stream(loader.dataset):
            _check_streams(resume)
        told = {"seed": state["seed"], **state["fingerprint"]}
    except Exception as error:
        raise damaged(error) from error
    if (told["seed"] is None) != (loader._seeding is None):
        raise misfit_of_kind(f"seed is {_seed_of(loader)!r}, but {told['seed']!r} in the state")
    if strict:
        now = {"seed": _seed_of(loader), **(fingerprint(loader) if resume.in_epoch else {})}
        differences = [*_differences(now, told)]
        if differences:
            raise misfit(differences)
    unit = _unit_of(loader)
    if resume.in_epoch and unit not in state:
        other = "samples" if unit == "batches" else "batches"
        raise misfit_of_kind(f"its places are counted in {unit}, but in {other} in the state")
    return resume


def _differences(now: Mapping[str, Any], told: Mapping[str, Any], of: str = "") -> Iterator[str]:
    for name, value in now.items():
        other = told.get(name)
        if value != other and isinstance(value, dict) and isinstance(other, dict):
            yield from _differences(cast("State", value), cast("State", other), f"{of}{name}'s ")
        elif value != other:
            yield f"{of}{name} is {value!r}, but {other!r} in the state"


def _unit_of(loader: Any) -> str:
    batch_sampler = loader.batch_sampler
    in_batches = loader._seeding is None or is_stream(loader.dataset)
    return "batches" if in_batches or (batch_sampler is not None and not cuts_evenly(batch_sampler)) else "samples"


def _seed_of(loader: Any) -> int | None:
    seeding = loader._seeding
    return None if seeding is None else int(seeding.seed)


def _next_epoch(loader: Any) -> int:
    return int(loader._next_epoch if loader._seeding is None else loader._seeding.next_epoch)


def resume_in(epoch: int, resume: Resume | None) -> Resume | None:
    """What is left of a loaded state when somebody says that the next epoch is `epoch`.

    Raises:
        ConfigError: that is no number of an epoch.
    """
    if resume is None or resume.epoch == checked_epoch(epoch):
        return resume
    warnings.warn(
        f"a state of epoch {resume.epoch} was loaded, and then set_epoch({epoch}) called: the state is dropped, and "
        "that epoch begins at its beginning",
        StateWarning,
        stacklevel=users_level(),
    )
    return None


def misfit(differences: list[str]) -> StateError:
    """The error for a state of another kind of loader."""
    return StateError(
        f"this state does not fit this loader: {'; '.join(differences)}. Its order would be another one. If that is "
        "wanted, load it with strict=False: the epoch goes on at the same place of the new order"
    )


def damaged(error: Exception) -> StateError:
    """The error for what cannot be read."""
    return StateError(
        f"this state is damaged ({type(error).__qualname__}: {error}): load one that is as state_dict() gave it"
    )


def check_version(version: int) -> None:
    """Raises a StateError for a version of the format that is not known here yet."""
    if version > VERSION:
        raise StateError(
            f"this state has version {version} of the format, and this Forebay reads versions up to {VERSION}: update "
            "Forebay"
        )


def taken_by(front: str) -> StateError:
    """The error for a state of the other front."""
    return StateError(f"this state was taken by {front}, whose states no other class opens: load it into one of those")


def misfit_of_kind(difference: str) -> StateError:
    """The error for a state that means nothing to this loader."""
    return StateError(
        f"this state does not fit this loader: {difference}. Load it into a loader like the one it was taken of: "
        "with a seed or without, with a batch sampler of your own or without"
    )


def _read(state: Mapping[str, Any], raw: State) -> Resume:
    num_workers, held = _count(state["num_workers"]), [dict(each) for each in state.get("workers", ())]
    if len(held) not in (0, max(1, num_workers)):
        fault = f"{len(held)} of {num_workers} workers told something"
        raise ValueError(fault)
    return Resume(
        state=raw,
        epoch=_count(state["epoch"], below=2**64),
        in_epoch=_truth(state["in_epoch"]),
        start=_count(state.get("samples", state.get("batches", 0))),
        passed=_ranges(state.get("ahead", ())),
        dealt_to=(_count(state["rank"]), _count(state["world"])) if "world" in state else None,
        batches=_count(state.get("batches", 0)),
        held=[each | {"batches": _count(each.get("batches", 0))} for each in held],
        num_workers=num_workers,
        last_worker=None if state.get("last_worker") is None else _count(state["last_worker"]),
        order=None if state.get("order") is None else dict(state["order"]),
        base_seed=None if state.get("base_seed") is None else _count(state["base_seed"]),
    )


def _count(value: Any, below: int = 2**63) -> int:
    if type(value) is not int or not 0 <= value < below:
        fault = f"{value!r} is no count"
        raise ValueError(fault)
    return value


def _truth(value: Any) -> bool:
    if type(value) is not bool:
        fault = f"{value!r} is neither true nor false"
        raise ValueError(fault)
    return value


def _ranges(told: Any) -> tuple[Range, ...]:
    ranges = tuple((_count(first), _count(last)) for first, last in told)
    disjoint = all(one[1] <= other[0] for one, other in pairwise(ranges))
    if not disjoint or any(first >= last for first, last in ranges):
        fault = f"{told!r:.200} are no ranges in order"
        raise ValueError(fault)
    return ranges


def _check_streams(resume: Resume) -> None:
    told = sum(each["batches"] for each in resume.held)
    if told != resume.batches:
        fault = f"the workers' streams gave {told} batches, not {resume.batches}"
        raise ValueError(fault)


def check_rank(resume: Resume, rank: int, world: int) -> None:
    """Refuses to go on on another rank where every rank has its own holes.

    Raises:
        StateError: it is another rank, or one of another number of them.
    """
    if resume.dealt_to is None or resume.dealt_to == (rank, world):
        return
    taken_on, of = resume.dealt_to
    raise StateError(
        f"this state was taken on rank {taken_on} of {of} with in_order=False, and has which batches that rank had "
        f"been given; it cannot go on on rank {rank} of {world}: load every rank's own state, on as many ranks, "
        "until the epoch is over"
    )


def check_workers(resume: Any, num_workers: int) -> None:
    """Refuses to hand to other workers what each worker's dataset told.

    Raises:
        StateError: there are more or fewer of them now.
    """
    if resume.held and resume.num_workers != num_workers:
        raise StateError(
            f"this state was taken with num_workers={resume.num_workers}, and has what the dataset of each worker "
            f"told, or how far its stream was; it cannot go on with num_workers={num_workers}: set num_workers to "
            f"{resume.num_workers} until the epoch is over"
        )


def _held_of(epoch: Any, loader: Any) -> list[Held]:
    """What each worker's dataset told as of its last delivered batch. Between epochs only what lives on.

    Args:
        epoch: the loader's latest, or None before the first.
        loader: of either front.
    """
    stream = is_stream(loader.dataset)
    if loader.num_workers == 0:
        return _held_here(loader.dataset, epoch, stream=stream)
    if epoch is None or not epoch.cursor.standings:
        return []
    if epoch.cursor.finished and (stream or not loader.persistent_workers):
        return []
    standings = [epoch.cursor.standings.get(worker, Standing()) for worker in range(loader.num_workers)]
    return [held_as(standing, stream=stream) for standing in standings]


def _held_here(dataset: Any, epoch: Any, *, stream: bool) -> list[Held]:
    if epoch is None or epoch.cursor.finished or not stream:
        held = tell(dataset) or {}
        return [held] if held else []
    fetcher = epoch.fetcher
    held = (fetcher and tell_of(dataset, fetcher)) or {}
    return [{"batches": epoch.cursor.delivered, **held}]


def warn_of_skipping(workers: list[Held]) -> None:
    """Warns if a stream has to be read from its beginning to where it stood."""
    batches = sum(held.get("batches", 0) for held in workers if not {"dataset", "iterator"} & held.keys())
    if batches > 0:
        warnings.warn(
            f"neither the dataset nor the iterator over it has state_dict and load_state_dict: {batches} batches are "
            "read and dropped to come to where the epoch goes on. Give one of them both methods, and it goes on at "
            "once.",
            StateWarning,
            stacklevel=users_level(),
        )
