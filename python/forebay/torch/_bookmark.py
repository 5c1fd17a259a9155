"""What a loader keeps of its running epoch, so that its state can be told at any batch, and how an epoch goes on."""

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from torch.utils.data.dataloader import _DatasetKind

from forebay import _resume
from forebay._cursor import Cursor, Standing
from forebay._resume import check_workers, warn_of_skipping
from forebay._seeded import SeededSampler
from forebay._seeding import members
from forebay._stateful import Held, held_as, is_stateful, restore, tell
from forebay.torch import _order
from forebay.torch._encoding import encoded_order
from forebay.torch._order import Order
from forebay.torch._state import (
    DELIVERED,
    FINISHED,
    KEY,
    POSITION,
    SAMPLER,
    SAMPLER_ITERATOR,
    VERSION,
    Resume,
    State,
    portrait,
    state_of_epoch,
)

if TYPE_CHECKING:
    from forebay.torch._seeded import SeededBookmark

__all__ = ["Bookmark", "open_bookmark", "state_of"]

_SAMPLES = "samples_yielded"
_INNER = "sampler_state"


class Bookmark:
    """One epoch of a loader: where it stands, and what its order is drawn from.

    Args:
        loader: whose epoch begins, from its loaded state if there is one.
        before: the epoch before, if its workers go on.

    Attributes:
        cursor: the delivered batches.
        resume: the state that this epoch goes on from, or None.
    """

    seed = None
    epoch = 0
    gives_places = False

    def __init__(self, loader: Any, before: "Bookmark | None" = None) -> None:
        resume: Resume | None = getattr(loader, "_resume", None)
        self._stream = loader._dataset_kind == _DatasetKind.Iterable
        self._keeps = hasattr(loader, "_bookmark")
        """Whether the loader can be asked for its state: torch's own class cannot."""
        self._num_workers = int(loader.num_workers)
        if resume is not None:
            check_workers(resume, self._num_workers)
        self._loaded = resume
        self.resume = resume if resume is not None and resume.in_epoch else None
        self.cursor = Cursor(standings=resume.standings() if resume is not None else None)
        if self.resume is not None:
            self.cursor = self.resume.cursor()
        if before is not None and not self._stream:
            self.cursor.standings = dict(before.cursor.standings)
        self.delivered_before = self.cursor.delivered
        """Batches of this epoch that were delivered before it went on."""
        self._sampler = loader._index_sampler
        self._order: Order | None = None if self.resume is None else self.resume.order
        self._recorded: list[Any] | None = None
        """The samplers that the order was noted of."""
        self._base_seed: int = 0 if before is None else before._base_seed
        self._log: SamplerLog | None = None
        self._fetcher: Any = None
        self._described: State | None = None
        if self._keeps:
            loader._bookmark = self

    @classmethod
    def open(cls, loader: Any, before: "Bookmark | None" = None) -> "Bookmark":
        """Begins an epoch, before torch's own iterator draws anything for it."""
        bookmark = cls(loader, before)
        resume: Resume | None = getattr(loader, "_resume", None)
        if resume is not None:
            if not resume.in_epoch:
                _set_generators(loader, resume.order)
                _go_to_next_epoch(loader, resume)
            elif bookmark._stream:
                warn_of_skipping(resume.held)
            if bookmark._num_workers == 0:
                for held in resume.held:
                    restore(loader.dataset, held)
        return bookmark

    def __len__(self) -> int:
        return len(self._sampler)

    @property
    def draws_itself(self) -> bool:
        """Whether indices come from here, and not from the sampler's own beginning."""
        return self.resume is not None

    def drawing(self) -> AbstractContextManager[None]:
        """Held while torch's own iterator draws for the epoch."""
        return nullcontext()

    def base_seed(self, loader: Any, drawn: int) -> int:
        """The seed of the workers: the one that was drawn, or that of the workers which go on."""
        self._base_seed = drawn
        if self._loaded is not None and self._loaded.base_seed is not None:
            self._base_seed = self._loaded.base_seed
            _set_generators(loader, self._loaded.order)  # as if nothing had been drawn
        return self._base_seed

    def record(self, loader: Any, *, seeded_between: bool = False) -> None:
        """Called just before the sampler is asked: notes what it will draw from, unless that is known."""
        samplers = members(loader._index_sampler)
        is_known = self._order is not None and (self._recorded is None or _same(self._recorded, samplers))
        if self._keeps and not is_known:
            stateful = _has_stateful_sampler(loader)
            self._order = _order.record(loader, stateful=stateful, seeded_between=seeded_between)
            self._recorded, self._described = samplers, None

    def batches(self, loader: Any, iterator: Iterator[Any]) -> Iterator[Any]:
        """The indices of the batches to deliver; `iterator` gives those of a whole epoch."""
        stateful = self._keeps and _has_stateful_sampler(loader, iterator)
        if self.resume is not None:
            iterator = _rest(loader, self.resume, iterator)
        if stateful:
            iterator = self._log = SamplerLog(loader, iterator, self.cursor)
        return self.cursor.undelivered(iterator)

    @property
    def first_worker(self) -> int:
        """Whose turn it is."""
        if self.resume is None:
            return 0
        if not self._stream:
            return self.cursor.position % self._num_workers
        last = self.resume.last_worker
        return 0 if last is None else (last + 1) % self._num_workers

    def watch(self, fetcher: Any) -> None:
        """Without workers, dataset and iterator are asked when the loader is."""
        # Others are not kept: a generator that the program has left shall end.
        if self._keeps and self._stream and (is_stateful(fetcher.dataset) or is_stateful(fetcher.dataset_iter)):
            self._fetcher = fetcher

    def describe(self, loader: Any) -> State:
        """This epoch, as a state has it."""
        cursor, in_epoch = self.cursor, not self.cursor.finished
        described = self._described or {"loader": portrait(loader), "order": encoded_order(self._order_of(loader))}
        if self._order is not None:
            self._described = described
        ours: State = {"version": VERSION, "in_epoch": in_epoch, "num_workers": self._num_workers}
        if in_epoch:
            ours |= copy.deepcopy(described)
            ours |= {"base_seed": self._base_seed, "ahead": sorted(cursor.ahead)}
            if self._stream:
                ours["last_worker"] = cursor.last_worker
        else:
            ours["order"] = encoded_order(_generators_now(loader))
            if loader.persistent_workers:
                ours["base_seed"] = self._base_seed
        held = self._held(loader)
        if held:
            ours["workers"] = held
        told = {} if self._log is None else self._log.told()
        return _state(cursor, ours, told, described["loader"]["batch_size"])

    def _order_of(self, loader: Any) -> Order:
        """What the order was drawn from; before that, what it would be drawn from now."""
        return self._order or _order.record(loader, stateful=_has_stateful_sampler(loader))

    def _held(self, loader: Any) -> list[Held]:
        """What each worker's dataset tells. Between epochs only what lives on."""
        if self._num_workers == 0:
            return _held_here(loader, self._fetcher, self.cursor)
        if self.cursor.finished and (self._stream or not loader.persistent_workers):
            return []
        standings = self.cursor.standings
        if not standings:
            return []
        return [held_as(standings.get(worker, Standing()), stream=self._stream) for worker in range(self._num_workers)]


def _held_here(loader: Any, fetcher: Any, cursor: Cursor) -> list[Held]:
    stream = loader._dataset_kind == _DatasetKind.Iterable
    if cursor.finished or not stream:
        held = tell(loader.dataset) or {}
        return [held] if held else []
    held = (fetcher and tell(loader.dataset, fetcher.dataset_iter, ended=fetcher.ended)) or {}
    return [{"batches": cursor.delivered, **held}]


def open_bookmark(loader: Any, before: "Bookmark | SeededBookmark | None" = None) -> "Bookmark | SeededBookmark":
    """Begins an epoch, before torch's own iterator draws anything for it."""
    if getattr(loader, "_seeding", None) is not None:
        from forebay.torch._seeded import SeededBookmark  # needs the engine, which not every system has

        return SeededBookmark(loader)
    return Bookmark.open(loader, before if isinstance(before, Bookmark) else None)


class SamplerLog:
    """What stateful samplers told after each batch that was drawn: they are ahead of what has been delivered."""

    def __init__(self, loader: Any, batches: Iterator[Any], cursor: Cursor) -> None:
        self._sampler = loader._index_sampler  # not the loader, whose iterator has this
        self._batches = batches
        self._cursor = cursor
        self._drawn = self._oldest = cursor.position
        self._told = {self._drawn: self._ask()}

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        batch = next(self._batches)
        self._drawn += 1
        self._told[self._drawn] = self._ask()
        while self._oldest < self._cursor.position:
            self._told.pop(self._oldest)
            self._oldest += 1
        return batch

    def told(self) -> State:
        """As of the last delivered batch.

        Before the first one, a sampler may tell of its last epoch's end.
        """
        told = copy.deepcopy(self._told[self._cursor.position])
        if self._cursor.position == 0:
            told.pop(SAMPLER, None)
        return told

    def _ask(self) -> State:
        sampler, *inner = members(self._sampler)
        told: State = {}
        if is_stateful(sampler):
            told[SAMPLER] = sampler.state_dict()
        elif stateful := _first_stateful(inner):
            told[SAMPLER] = {_INNER: stateful[0].state_dict()}
        if is_stateful(self._batches):
            iterator: Any = self._batches
            told[SAMPLER_ITERATOR] = iterator.state_dict()
        return copy.deepcopy(told)  # what an object tells may be what it goes on changing


def _same(some: list[Any], others: list[Any]) -> bool:
    return list(map(id, some)) == list(map(id, others))


def _first_stateful(samplers: list[Any]) -> list[Any]:
    return [each for each in samplers if is_stateful(each)][:1]


def _has_stateful_sampler(loader: Any, iterator: Any = None) -> bool:
    return is_stateful(iterator) or any(map(is_stateful, members(loader._index_sampler)))


def _rest(loader: Any, resume: Resume, iterator: Iterator[Any]) -> Iterator[Any]:
    """What the sampler has still to give in the epoch that goes on."""
    _set_generators(loader, resume.order)
    _order.set_epochs(loader, resume.order.epochs)
    told: Any = resume.state.get(SAMPLER)
    of_iterator = resume.state.get(SAMPLER_ITERATOR)
    sampler, *inner = members(loader._index_sampler)
    within = _first_stateful(inner) if told is not None and _INNER in told else []
    if is_stateful(sampler) and told is not None:
        _load(sampler, told)
    elif within and told is not None:
        _load(within[0], told[_INNER])
    elif not (is_stateful(iterator) and of_iterator is not None):
        return _order.rest_of(loader, resume.position, resume.order)
    rest: Any = iter(loader._index_sampler)
    if is_stateful(rest) and of_iterator is not None:
        rest.load_state_dict(copy.deepcopy(of_iterator))
    return iter(rest)


def _load(sampler: Any, told: State) -> None:
    sampler.load_state_dict(copy.deepcopy(told))
    if isinstance(sampler, SeededSampler):  # even if nothing of its epoch is left
        sampler.set_epoch(told["epoch"])


def _go_to_next_epoch(loader: Any, resume: Resume) -> None:
    """The epoch of the state is over, also for a sampler that had more than the batches took."""
    told: Any = resume.state.get(SAMPLER)
    for sampler in _first_stateful(members(loader._index_sampler)):
        if isinstance(sampler, SeededSampler) and told is not None:
            sampler.set_epoch(told.get(_INNER, told)["epoch"] + 1)


def _set_generators(loader: Any, order: Order) -> None:
    for generator, state in zip(_order.own_generators(loader), order.generators, strict=True):
        generator.set_state(state)


def _generators_now(loader: Any) -> Order:
    return Order(generators=[generator.get_state() for generator in _order.own_generators(loader)])


def state_of(loader: Any) -> State:
    """The state of a loader: of its latest epoch, or the one that was loaded and waits for `iter()`."""
    if loader._resume is not None:
        waiting: State = copy.deepcopy(loader._resume.state)
        return waiting
    bookmark: Bookmark | SeededBookmark | None = loader._bookmark
    if loader._unserved:
        return _state(Cursor(), {"version": VERSION, "unserved": True}, {}, None)
    if bookmark is not None:
        return bookmark.describe(loader)
    if loader._seeding is not None:
        return state_of_epoch(0, False, _resume.describe(None, loader), 0)
    ours: State = {"version": VERSION, "in_epoch": False, "num_workers": int(loader.num_workers)}
    ours["order"] = encoded_order(_generators_now(loader))
    held = tell(loader.dataset) if loader.num_workers == 0 else None
    if held:
        ours["workers"] = [held]
    return _state(Cursor(), ours, {}, None)


def _state(cursor: Cursor, ours: State, told: State, batch_size: int | None) -> State:
    samples = {} if batch_size is None else {_SAMPLES: cursor.position * batch_size}
    of_sampler = told.get(SAMPLER)
    if of_sampler is None or set(of_sampler) == {_INNER}:
        of_sampler = {**samples, **(of_sampler or {})} or None
    return {
        POSITION: cursor.position,
        DELIVERED: cursor.delivered,
        SAMPLER: of_sampler,
        SAMPLER_ITERATOR: told.get(SAMPLER_ITERATOR),
        FINISHED: cursor.finished,
        KEY: ours,
    }
