"""How programs use a loader: threads, forks, copies, several iterators, and ends of all kinds."""

import atexit
import copy
import gc
import multiprocessing
import os
import pickle
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from observing import NUMPY_FRONT, PYTORCH, Face, Input, Section, epoch, error_words, rest
from rows_data import Squares

from support import journey_of, wait_for_ends, watch


def five(face: Face, **options: Any) -> Any:
    return face(Squares(), batch_size=2, **options)


def ended(loader: Any, found: Any) -> Any:
    """`found`, after persistent workers were let go."""
    iterator = getattr(loader, "_iterator", None)
    if iterator is not None:
        end(iterator)
    return found


def end(iterator: Any) -> None:
    stop = getattr(iterator, "_shutdown_workers", None) or getattr(iterator, "close", None)
    if stop is not None:
        stop()


def workers(face: Face, iterator: Any) -> list[int]:
    processes = journey_of(iterator).processes if face.name == NUMPY_FRONT else iterator._workers
    return [process.pid for process in processes]


def attempt(action: Callable[[], Any]) -> str:
    """What `action` gives, or its error."""
    try:
        return str(action())
    except Exception as error:  # noqa: BLE001 - it is what is looked at
        return f"`{error_words(error)}`"


# -- Threads and processes


def _in_thread(face: Face) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(epoch(five(face))))
    thread.start()
    thread.join()
    return found


def _handed_on(face: Face) -> Any:
    iterator = iter(five(face))
    found = [next(iterator)]
    thread = threading.Thread(target=lambda: found.extend(rest(iterator)))
    thread.start()
    thread.join()
    return found


def _together(makers: list[Callable[[], Any]]) -> list[list[Any]]:
    found: list[list[Any]] = [[] for _ in makers]
    threads = [
        threading.Thread(target=lambda into=into, make=make: into.extend(make()))
        for into, make in zip(found, makers, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def _shared(face: Face) -> str:
    if face.name == PYTORCH:
        return "not run: a race, which may hang"
    iterator = iter(face(Squares(400), num_workers=2))
    found = [outcome for part in _together([lambda: rest(iterator)] * 2) for outcome in part]
    counts = Counter(int(batch[0]) for batch in found if not hasattr(batch, "error"))
    errors = Counter(error_words(outcome.error) for outcome in found if hasattr(outcome, "error"))
    whole = counts == Counter(number * number for number in range(400))
    return "; ".join(["400 batches, each once" if whole else f"{counts.total()} of 400 batches", *errors])


def _one_each(face: Face) -> Any:
    loader = five(face)
    first, second = _together([lambda: epoch(loader)] * 2)
    return [*first, "and", *second]


def _forked(action: Callable[[], str]) -> str:
    """What `action` tells in a forked child."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(into, attempt(action).encode())
        finally:
            os._exit(0)
    os.close(into)
    with os.fdopen(out, "rb") as pipe:
        told = pipe.read().decode()
    os.waitpid(pid, 0)
    return told


def _child_goes_on(face: Face) -> list[Any]:
    iterator = iter(five(face))
    next(iterator)
    told = _forked(lambda: next(iterator).tolist())
    return [f"the child: {told}; the parent:", *rest(iterator)]


def _child_begins(face: Face) -> str:
    loader = five(face)
    next(iter(loader))
    return _forked(lambda: [batch.tolist() for batch in epoch(loader)])


def _child_ends(face: Face) -> str:
    """A forked child that ends as programs do must not take its parent's workers with it."""
    if face.name == PYTORCH:
        return "not run: a race, which may hang"
    iterator = iter(five(face))
    found = [next(iterator)]
    pid = os.fork()
    if pid == 0:
        del iterator
        gc.collect()
        os._exit(0)
    os.waitpid(pid, 0)
    return str([batch.tolist() for batch in [*found, *rest(iterator)]])


def _kept_across_fork(face: Face) -> str:
    batches = epoch(five(face))
    return _forked(lambda: [batch.tolist() for batch in batches])


def _daemon(face: Face) -> str:
    out, into = multiprocessing.get_context("fork").Pipe(duplex=False)

    def work() -> None:
        into.send(attempt(lambda: [batch.tolist() for batch in five(face)]))

    process = multiprocessing.get_context("fork").Process(target=work, daemon=True)
    process.start()
    told = out.recv()
    process.join()
    return told


class Nesting(Squares):
    """Loads by itself while it is loaded."""

    def __init__(self, face: Face, workers: int) -> None:
        super().__init__(2)
        self.inner = face(range(3), batch_size=3, num_workers=workers)

    def __getitem__(self, index: int) -> Any:
        return next(iter(self.inner))


# -- Copies


def _copied(how: Callable[[Any], Any]) -> Callable[[Face], Any]:
    return lambda face: how(five(face))


def _pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def _after_use(how: Callable[[Any], Any], **options: Any) -> Callable[[Face], Any]:
    def given(face: Face) -> Any:
        loader = five(face, **options)
        epoch(loader) if not options else list(loader)
        told = attempt(lambda: [batch.tolist() for batch in ended_list(how(loader))])
        return ended(loader, told)

    return given


def ended_list(loader: Any) -> list[Any]:
    return ended(loader, list(loader))


def _iterator_copied(how: Callable[[Any], Any], **options: Any) -> Callable[[Face], Any]:
    def given(face: Face) -> str:
        iterator = iter(five(face, **options))
        told = attempt(lambda: type(how(iterator)).__name__)
        end(iterator)
        return told

    return given


# -- Several iterators, and ends


def _two_at_once(face: Face) -> Any:
    loader = five(face)
    return [batch for pair in zip(loader, loader, strict=True) for batch in pair]


def _same_iterator(face: Face) -> Any:
    loader = five(face, persistent_workers=True)
    first = iter(loader)
    next(first)
    same = iter(loader) is first
    return ended(loader, [f"the same iterator: {same}, from the beginning:", *rest(first)])


def _nested_loops(face: Face) -> Any:
    loader = five(face, persistent_workers=True)
    found = [(outer.tolist(), inner.tolist()) for outer in loader for inner in loader]
    return ended(loader, str(found))


def _after_end(face: Face) -> str:
    iterator = iter(five(face))
    list(iterator)
    return f"StopIteration {[next(iterator, 'again'), next(iterator, 'again')]}".replace("'", "")


def _broken_off(face: Face) -> Any:
    loader = five(face)
    for _batch in loader:
        break
    return loader


def _broken_off_persistent(face: Face) -> Any:
    loader = five(face, persistent_workers=True)
    for _batch in loader:
        break
    return ended(loader, [*loader])


def _lengths(face: Face) -> str:
    loader = five(face)
    iterator = iter(loader)
    next(iterator)
    told = f"{len(loader)}, {len(iterator)}"
    end(iterator)
    return told


def _collected(face: Face) -> str:
    iterator = iter(five(face, num_workers=2))
    next(iterator)
    ends = watch(workers(face, iterator))
    del iterator
    gc.collect()
    wait_for_ends(ends)
    return "its workers end"


def _collected_in_cycle(face: Face) -> str:
    iterator = iter(five(face, num_workers=2))
    ends = watch(workers(face, iterator))
    cycle: list[Any] = [iterator]
    cycle.append(cycle)
    del iterator, cycle
    gc.collect()
    wait_for_ends(ends)
    return "its workers end"


def _kept_after(face: Face) -> Any:
    loader = five(face)
    iterator = iter(loader)
    batches = [*iterator]
    del loader, iterator
    gc.collect()
    return batches


_to_the_end: list[Any] = []
"""What lives until the interpreter ends."""


def _exits_half_way(face: Face) -> str:
    iterator = iter(five(face, num_workers=2))
    _to_the_end.extend([iterator, next(iterator)])
    return "the program ends"


def _exits_persistent(face: Face) -> str:
    loader = five(face, num_workers=2, persistent_workers=True)
    _to_the_end.extend([loader, list(loader)])
    return "the program ends"


def _exits_in_a_thread(face: Face) -> str:
    """A daemon thread waits for a batch that never comes, when the program ends."""
    iterator = iter(face(Waiting()))
    _to_the_end.append(iterator)
    threading.Thread(target=lambda: next(iterator), daemon=True).start()
    return "the program ends"


def _loads_at_exit(face: Face) -> str:
    loader = five(face)
    atexit.register(lambda: list(loader))
    return "the program ends"


class Waiting(Squares):
    def __getitem__(self, index: int) -> Any:
        threading.Event().wait()


class InterruptsTheTrainer(Squares):
    """Presses Ctrl-C before its second sample."""

    def __init__(self) -> None:
        super().__init__(3)
        self.trainer = os.getpid()

    def __getitem__(self, index: int) -> Any:
        if index == 1:
            os.kill(self.trainer, signal.SIGINT)
        return index


def _interrupted(face: Face) -> str:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    found: list[Any] = []
    try:
        found.extend(iter(face(InterruptsTheTrainer(), prefetch_factor=1)))
        threading.Event().wait()
    except KeyboardInterrupt:
        return "KeyboardInterrupt in the training loop"
    return "nothing"


# -- State and randomness


class Counting(Squares):
    def __init__(self) -> None:
        super().__init__(4)
        self.made = 0

    def __getitem__(self, index: int) -> int:
        self.made += 1
        return self.made


def _state(**options: Any) -> Callable[[Face], Any]:
    def given(face: Face) -> str:
        dataset = Counting()
        loader = face(dataset, batch_size=4, **options)
        seen = [batch.tolist() for _ in range(2) for batch in loader]
        return ended(loader, f"{seen}, in the program: {dataset.made}")

    return given


class Drawing(Squares):
    """Draws from a generator of its own, or from a global stream."""

    def __init__(self, draw: Callable[[], int]) -> None:
        super().__init__(4)
        self.draw = draw

    def __getitem__(self, index: int) -> int:
        return self.draw()


def _drawn(make: Callable[[], Callable[[], int]]) -> Callable[[Face], Any]:
    def given(face: Face) -> str:
        random.seed(1)
        batches = list(face(Drawing(make()), num_workers=2))
        first, second = (batches[number].tolist() for number in (0, 1))
        return "both workers draw the same" if first == second else "each worker draws its own"

    return given


class Noisy(Squares):
    """Has a random generator of its own."""

    def __init__(self, rng: Any, draw: Callable[[Any], int]) -> None:
        super().__init__(4)
        self.rng = rng
        self.draw = draw

    def __getitem__(self, index: int) -> int:
        return self.draw(self.rng)


def _held(make: Callable[[], Any], draw: Callable[[Any], int]) -> Callable[[Face], Any]:
    def given(face: Face) -> str:
        first, second, *_ = (batch.tolist() for batch in face(Noisy(make(), draw), num_workers=2))
        return "both workers draw the same" if first == second else "each worker draws its own"

    return given


def _of_numpy(rng: Any) -> int:
    return int(rng.integers(2**40))


def _made_in_workers(face: Face) -> str:
    def make(_worker: int) -> None:
        info = face.get_worker_info()
        info.dataset.rng = np.random.default_rng(info.seed)

    loader = face(Noisy(np.random.default_rng(1), _of_numpy), num_workers=2, worker_init_fn=make)
    first, second, *_ = (batch.tolist() for batch in loader)
    return "both workers draw the same" if first == second else "each worker draws its own"


def _held_by_one(face: Face) -> str:
    loader = face(Noisy(np.random.default_rng(1), _of_numpy), batch_size=4)
    first, second = (batch.tolist() for _ in range(2) for batch in loader)
    return "both epochs draw the same" if first == second else "each epoch draws its own"


class Telling(Squares):
    """Tells the program of every sample, through something that processes share."""

    def __init__(self, tell: Callable[[int], object]) -> None:
        super().__init__(4)
        self.tell = tell

    def __getitem__(self, index: int) -> int:
        self.tell(index)
        return index


def _shared_value(face: Face) -> str:
    value = multiprocessing.get_context("fork").Value("q", 0)

    def add(index: int) -> None:
        with value.get_lock():
            value.value += index

    list(face(Telling(add), num_workers=2))
    return f"the program reads {value.value}"


def _shared_tensor(face: Face) -> str:
    tensor = torch.zeros(4, dtype=torch.int64).share_memory_()
    list(face(Telling(lambda index: tensor.__setitem__(index, 1)), num_workers=2))
    return f"the program reads {tensor.tolist()}"


def _shared_queue(face: Face) -> str:
    queue = multiprocessing.get_context("fork").SimpleQueue()
    list(face(Telling(queue.put), num_workers=2))
    return f"the program reads {sorted(queue.get() for _ in range(4))}"


OWNER = "the child leaves its parent's workers alone"
TURNS = "the threads take turns"
WARNS = "and a warning that names attribute and cure"

DAEMON = "a note says what to do instead"

THREADS = [
    Input("a loader used in a thread", _in_thread),
    Input("an iterator handed on to another thread", _handed_on),
    Input("an iterator shared by two threads", _shared, reason=TURNS, numpy_reason=TURNS),
    Input("a loader shared by two threads, an iterator each", _one_each),
    Input("a forked child goes on with its parent's iterator", _child_goes_on, alone=True, hangs=True),
    Input("a forked child begins an epoch of its parent's loader", _child_begins),
    Input("a forked child ends while its parent loads", _child_ends, reason=OWNER, numpy_reason=OWNER),
    Input("a forked child reads its parent's batches", _kept_across_fork),
    Input("a loader with workers in a daemonic process", _daemon, reason=DAEMON, numpy_reason=DAEMON),
    Input(
        "a dataset that uses a loader without workers, in a worker", lambda face: face(Nesting(face, 0), batch_size=2)
    ),
    Input(
        "… with workers, in a worker",
        lambda face: face(Nesting(face, 1), batch_size=2),
        reason=DAEMON,
        numpy_reason=DAEMON,
    ),
]

NAME = "the same error, with the iterator's own name"
INSTEAD = "says what to pickle instead"
WITHOUT_ITERATOR = "the copy has no workers yet; the original keeps its own"

COPIES = [
    Input("a loader, pickled", _copied(_pickled)),
    Input("… deep-copied", _copied(copy.deepcopy)),
    Input("… copied", _copied(copy.copy)),
    Input("… pickled after an epoch", _after_use(_pickled)),
    Input("… deep-copied after an epoch", _after_use(copy.deepcopy)),
    Input(
        "a loader with persistent workers, pickled after an epoch",
        _after_use(_pickled, persistent_workers=True),
        reason=NAME,
        numpy_reason=WITHOUT_ITERATOR,
    ),
    Input(
        "… deep-copied, with persistent workers",
        _after_use(copy.deepcopy, persistent_workers=True),
        reason=NAME,
        numpy_reason=WITHOUT_ITERATOR,
    ),
    Input("… copied, with persistent workers", _after_use(copy.copy, persistent_workers=True)),
    Input("an iterator, pickled", _iterator_copied(_pickled), reason=NAME, numpy_reason=INSTEAD),
    Input("…, deep-copied", _iterator_copied(copy.deepcopy), reason=NAME, numpy_reason=INSTEAD),
    Input("…, pickled, no workers", _iterator_copied(_pickled, num_workers=0), reason=NAME, numpy_reason=INSTEAD),
]

ENDS = [
    Input("two iterators of one loader, by turns", _two_at_once),
    Input("`iter()` twice with persistent workers", _same_iterator),
    Input("a loop in a loop over a loader with persistent workers", _nested_loops),
    Input("`next()` after the end", _after_end),
    Input("a loop that was left early, and another", _broken_off),
    Input("…, with persistent workers", _broken_off_persistent),
    Input("`len()` of loader and iterator", _lengths),
    Input("an iterator collected half-way", _collected),
    Input("… in a reference cycle", _collected_in_cycle),
    Input("batches kept when loader and iterator are gone", _kept_after),
    Input("the program ends half-way through an epoch", _exits_half_way, alone=True),
    Input("… with persistent workers", _exits_persistent, alone=True),
    Input("… while a daemon thread waits for a batch", _exits_in_a_thread, alone=True),
    Input("… and loads in an `atexit` function", _loads_at_exit, alone=True),
    Input("Ctrl-C", _interrupted, alone=True),
    Input("`sys.exit` inside the loop", lambda face: [batch for batch in five(face) if sys.exit(3)]),
]

STATE = [
    Input("a dataset that counts its samples, two epochs", _state()),
    Input("… with persistent workers", _state(persistent_workers=True)),
    Input("… no workers", _state(num_workers=0)),
    Input("`random`", _drawn(lambda: lambda: random.getrandbits(40))),
    Input("`np.random`", _drawn(lambda: lambda: int(np.random.randint(2**31)))),
    Input("`torch.rand`", _drawn(lambda: lambda: int(torch.randint(2**40, ()))), numpy=False),
    Input(
        "a `numpy.random.Generator` held by the dataset",
        _held(lambda: np.random.default_rng(1), _of_numpy),
        reason=WARNS,
        numpy_reason=WARNS,
        whole=True,
    ),
    Input(
        "a `numpy.random.RandomState`",
        _held(lambda: np.random.RandomState(1), lambda rng: int(rng.randint(2**31))),
        reason=WARNS,
        numpy_reason=WARNS,
    ),
    Input(
        "a `random.Random`",
        _held(lambda: random.Random(1), lambda rng: rng.getrandbits(40)),
        reason=WARNS,
        numpy_reason=WARNS,
    ),
    Input(
        "a `torch.Generator`",
        _held(torch.Generator, lambda rng: int(torch.randint(2**40, (), generator=rng))),
        reason=WARNS,
        numpy_reason=WARNS,
    ),
    Input("a generator held by the dataset, one worker, two epochs", _held_by_one, reason=WARNS, numpy_reason=WARNS),
    Input("a generator that `worker_init_fn` makes of the worker's seed", _made_in_workers),
    Input("a `multiprocessing.Value` that workers add to", _shared_value),
    Input("a tensor in shared memory that workers write into", _shared_tensor),
    Input("a queue of `multiprocessing` that workers fill", _shared_queue),
]

SECTIONS = [
    Section("Threads and processes", "Batches of two squares of 0 to 4.", THREADS),
    Section("Copies", "", COPIES),
    Section("Iterators and ends", "", ENDS),
    Section("State and randomness of a dataset", "", STATE),
]
