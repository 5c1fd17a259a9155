"""A loader's state: taken at any batch, written as JSON, loaded into another loader of the same kind.

It is a cursor: how many batches have been delivered, and what makes the same order again. What libraries read and
change in it has torchdata's names; the rest is under `KEY`, with a version.
"""

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from torch.utils.data.dataloader import _DatasetKind

from forebay import _resume
from forebay._callers import users_level
from forebay._cursor import Cursor, Standing
from forebay._seeding import Seeding, members
from forebay._stateful import Held, standing_of
from forebay.errors import StateError, StateWarning
from forebay.torch._encoding import decoded_order
from forebay.torch._order import Order, is_standard, own_generators

__all__ = ["DELIVERED", "FINISHED", "KEY", "POSITION", "SAMPLER", "SAMPLER_ITERATOR", "VERSION", "Resume", "State"]
__all__ += ["check_no_resume", "loaded", "portrait", "state_of_epoch"]

State: TypeAlias = dict[str, Any]

KEY = "forebay"
VERSION = 1

# torchdata's names, which Accelerate reads and changes.
POSITION = "_sampler_iter_yielded"
DELIVERED = "_num_yielded"
FINISHED = "_iterator_finished"
SAMPLER = "_index_sampler_state"
SAMPLER_ITERATOR = "_sampler_iter_state"


@dataclass(frozen=True, slots=True)
class Resume:
    """A loaded state, checked. It waits for the next `iter()`.

    Attributes:
        state: as it was loaded.
        in_epoch: whether it goes on in the middle of an epoch.
        position: the first batch to deliver.
        ahead: later batches that have been delivered.
        base_seed: the seed of that epoch's workers.
        order: of that epoch; between epochs, the generators only.
        num_workers: of the loader that it was taken of.
        last_worker: who made the last delivered batch of a stream.
        held: what each worker's dataset told (without workers, the only one's).
        portrait: of the loader that it was taken of; empty between epochs.
    """

    state: State
    in_epoch: bool
    position: int
    ahead: tuple[int, ...]
    base_seed: int | None
    order: Order
    num_workers: int
    last_worker: int | None
    held: list[Held]
    portrait: Mapping[str, Any]

    def cursor(self) -> Cursor:
        """Where to go on."""
        return Cursor(self.position, self.ahead, self.standings())

    def standings(self) -> dict[int, Standing]:
        """How far the workers were."""
        return {worker: standing_of(held) for worker, held in enumerate(self.held)}


def portrait(loader: Any) -> State:
    """What another loader must have in common with this one to go on in the middle of its epoch."""
    sampler = loader._index_sampler
    found: State = {
        "dataset_length": _length(loader.dataset),
        "batch_size": _batch_size(loader),
        "drop_last": bool(loader.drop_last),
        "samplers": [type(each).__qualname__ for each in members(sampler)],
    }
    if is_standard(sampler):
        found["batches"] = _length(sampler)
    return found


def _length(sized: Any) -> int | None:
    try:
        return len(sized)
    except Exception:  # noqa: BLE001 - a dataset or sampler may have no length in any way it likes
        return None


def _batch_size(loader: Any) -> int | None:
    size = loader.batch_size if loader.batch_size is not None else getattr(loader.batch_sampler, "batch_size", None)
    return size if type(size) is int else None


def loaded(loader: Any, state: Any, *, strict: bool = True) -> Resume | _resume.Resume:
    """Checks a state that is to be loaded into `loader`.

    Args:
        loader: that is to go on.
        state: as `state_dict` gave it.
        strict: whether one of another kind of loader is refused.

    Raises:
        StateError: it is no state, damaged, of a later version, or of another kind of loader.
    """
    ours = _own_part(state)
    seeding = getattr(loader, "_seeding", None)
    if seeding is None and ours.get("seed") is not None:
        raise _resume.misfit_of_kind(f"seed is None, but {ours['seed']!r} in the state")
    if seeding is not None:
        return _loaded_with_seed(loader, seeding, state, ours, strict=strict)
    try:
        resume = _read(state, ours)
    except Exception as error:
        raise _resume.damaged(error) from error
    _check_generators(loader, resume)
    if resume.in_epoch and strict:
        _check_portrait(loader, resume.portrait)
    return _with_streams(resume) if loader._dataset_kind == _DatasetKind.Iterable else resume


def _loaded_with_seed(loader: Any, seeding: Seeding, state: State, ours: State, *, strict: bool) -> _resume.Resume:
    if ours.get("seed") is None:
        raise _resume.misfit_of_kind(f"seed is {seeding.seed}, but None in the state")
    resume = _resume.read(loader, ours, copy.deepcopy(dict(state)), strict=strict)
    try:
        delivered, step, finished = _count(ours["delivered"]), _count(ours["step"]), bool(state[FINISHED])
        back = max(0, delivered - _count(state[DELIVERED]))
    except Exception as error:
        raise _resume.damaged(error) from error
    if resume.in_epoch and finished:  # Accelerate says so, which is a batch ahead of the program
        resume = replace(resume, epoch=resume.epoch + 1, in_epoch=False, held=[])
    seeding.announce(loader, resume.epoch)
    if not resume.in_epoch or not back:
        return resume
    # Accelerate takes batches ahead of the program and sets the counts back by them.
    if resume.held:
        held = _streams_at(resume.batches - back, resume.batches, resume.held)
        return resume if held is resume.held else replace(resume, batches=resume.batches - back, held=held)
    passed = tuple((first + back * step, last + back * step) for first, last in resume.passed)
    return replace(resume, start=max(0, resume.start - back * step), passed=passed)


def state_of_epoch(delivered: int, finished: bool, ours: State, step: int) -> State:
    """The state of an epoch with a seed, with torchdata's names for what libraries read and change."""
    ours = ours | {"delivered": delivered, "step": step}
    return {
        POSITION: delivered,
        DELIVERED: delivered,
        SAMPLER: None,
        SAMPLER_ITERATOR: None,
        FINISHED: finished,
        KEY: ours,
    }


def check_no_resume(loader: Any) -> None:
    """Refuses to have torch's own iterator made for a loader that a state was loaded into.

    Raises:
        StateError: there is one.
    """
    if getattr(loader, "_resume", None) is not None:
        raise StateError(
            "a state was loaded, but torch's own iterator serves this loader (a FallbackWarning says why) and "
            "cannot go on from it: begin a new epoch in a new loader"
        )


def _with_streams(resume: Resume) -> Resume:
    delivered = sum(held.get("batches", 0) for held in resume.held)
    if not resume.in_epoch or delivered == resume.position:
        return resume
    held = _streams_at(resume.position, delivered, resume.held)
    return replace(resume, held=held, position=delivered if held is resume.held else resume.position)


def _streams_at(position: int, delivered: int, held: list[Held]) -> list[Held]:
    """Where streams go on if somebody changed the position: one that tells nothing can be read up to any."""
    if len(held) == 1 and not {"dataset", "iterator"} & held[0].keys():
        return [{"batches": position}]
    warnings.warn(
        f"this state was changed to go on after {position} batches, but what it has of its streams is as of "
        f"{delivered}: it goes on after {delivered}",
        StateWarning,
        stacklevel=users_level(),
    )
    return held


def _own_part(state: Any) -> State:
    if not isinstance(state, Mapping):
        raise StateError(f"a loader's state should be a dict, as state_dict() gives it, but is {type(state)}")
    ours = state.get(KEY)
    if ours is None and (DELIVERED in state or "_snapshot" in state):
        raise StateError(
            "this state was taken by torchdata's StatefulDataLoader, which Forebay cannot open: finish that epoch with "
            "the loader that took the state, or begin a new one without it"
        )
    if ours is None and "version" in state and "fingerprint" in state:
        raise _resume.taken_by("forebay.DataLoader")
    if not isinstance(ours, Mapping):
        raise StateError(f"this is not the state of a loader: it has the keys {sorted(map(str, state))[:8]}")
    version = ours.get("version")
    if type(version) is not int or version < 1:
        raise StateError(
            f"this state is damaged (it has the version {version!r}): load one that is as state_dict() gave it"
        )
    _resume.check_version(version)
    if ours.get("unserved"):
        raise StateError(
            "this state was taken while torch's own iterator served the loader (a FallbackWarning said why), which "
            "counts nothing: begin a new epoch without it"
        )
    return dict(ours)


def _read(state: Mapping[str, Any], ours: State) -> Resume:
    position, delivered = _count(state[POSITION]), _count(state[DELIVERED])
    ahead = tuple(_count(number) for number in ours.get("ahead", ()))
    finished = bool(state[FINISHED])
    in_epoch = bool(ours["in_epoch"]) and not finished
    num_workers, held = _count(ours["num_workers"]), [dict(each) for each in ours.get("workers") or ()]
    if len(held) not in (0, max(1, num_workers)):
        fault = f"{len(held)} of {num_workers} workers told something"
        raise ValueError(fault)
    for name in (SAMPLER, SAMPLER_ITERATOR):
        if state.get(name) is not None and not isinstance(state[name], Mapping):
            fault = f"{name} is {state[name]!r:.200}"
            raise ValueError(fault)
    return Resume(
        state=copy.deepcopy(dict(state)),
        in_epoch=in_epoch,
        position=min(position, delivered),
        ahead=ahead,
        base_seed=None if ours.get("base_seed") is None else int(ours["base_seed"]),
        order=decoded_order(ours["order"]),
        num_workers=num_workers,
        last_worker=None if ours.get("last_worker") is None else _count(ours["last_worker"]),
        held=[each | {"batches": _count(each["batches"])} if "batches" in each else each for each in held],
        portrait=dict(ours["loader"]) if in_epoch else {},
    )


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        fault = f"{value!r} is no count of batches"
        raise ValueError(fault)
    return value


def _check_generators(loader: Any, resume: Resume) -> None:
    here, there = len(own_generators(loader)), len(resume.order.generators)
    if here != there:
        raise _misfit([f"it has {here} generators of its own, but {there} in the state"])


def _check_portrait(loader: Any, painted: Mapping[str, Any]) -> None:
    now = portrait(loader)
    differences = [
        f"{name} is {now.get(name)!r}, but {value!r} in the state"
        for name, value in painted.items()
        if name in now and now[name] != value
    ]
    if differences:
        raise _misfit(differences)


def _misfit(differences: list[str]) -> StateError:
    return StateError(
        f"this state does not fit this loader: {'; '.join(differences)}. In the middle of an epoch, load a state "
        "into a loader made as the one it was taken of"
    )
