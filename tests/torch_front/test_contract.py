"""What programs written for torch's loader rely on, beyond the batches themselves. Most of it holds for both fronts."""

import contextlib
import copy
import gc
import inspect
import multiprocessing.context
import os
import pickle
import random
import re
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import dataloader as torch_dataloader

import forebay
import forebay.torch
from forebay.errors import ConfigError, FallbackWarning, LoaderTimeout
from support import (
    START_METHODS,
    Front,
    Gate,
    Numbers,
    WhoAmI,
    Wire,
    chunks,
    descriptor_count,
    exists,
    flat,
    identity,
    is_running,
    journey_of,
    pids_of,
    until,
    values,
)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open()
    made.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.close()


# -- Who makes which batch, and in which order they come


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("persistent", [False, True])
def test_batch_i_of_every_epoch_comes_whole_from_worker_i_mod_n(front: Front, workers: int, persistent: bool) -> None:
    dataset = WhoAmI(14, front.get_worker_info)
    with front.DataLoader(dataset, batch_size=2, num_workers=workers, persistent_workers=persistent) as loader:
        for _ in range(2):
            made = [set(batch[:, 1].tolist()) for batch in loader]
            assert made == [{number % workers} for number in range(7)]


def test_an_epoch_after_an_early_break_begins_with_worker_0_again(front: Front) -> None:
    dataset = WhoAmI(10, front.get_worker_info)
    with front.DataLoader(dataset, num_workers=2, persistent_workers=True) as loader:
        next(iter(loader))
        assert [batch[0, 1].item() for batch in loader] == [0, 1] * 5


class SlowFirst(WhoAmI):
    """Index 0 is not done before the gate is opened."""

    def __init__(self, count: int, info: Callable[[], Any], gate: Gate) -> None:
        super().__init__(count, info)
        self.gate = gate

    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        if index == 0:
            self.gate.wait()
        return super().__getitem__(index)


def test_in_order_a_slow_first_batch_comes_first_all_the_same(front: Front, gate: Gate) -> None:
    loader = front.DataLoader(SlowFirst(10, front.get_worker_info, gate), num_workers=2)
    iterator = iter(loader)
    gate.open()
    assert [(batch[0, 0].item(), batch[0, 1].item()) for batch in iterator] == [(i, i % 2) for i in range(10)]


def test_out_of_order_a_slow_worker_gets_no_more_than_its_share(front: Front, gate: Gate) -> None:
    dataset = SlowFirst(10, front.get_worker_info, gate)
    iterator = iter(front.DataLoader(dataset, num_workers=2, prefetch_factor=2, in_order=False))
    batches = list(islice(iterator, 8))
    gate.open()
    batches.extend(iterator)
    assert [batch[0, 0].item() for batch in batches] == [1, 3, 4, 5, 6, 7, 8, 9, 0, 2]
    assert [batch[0, 1].item() for batch in batches] == [1] * 8 + [0] * 2


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_out_of_order_every_sample_comes_once(front: Front, workers: int) -> None:
    batches = front.DataLoader(Numbers(23), batch_size=2, num_workers=workers, in_order=False)
    assert sorted(batch[:, 0].tolist() for batch in batches) == sorted(
        Numbers(23).batch(indices)[:, 0].tolist() for indices in chunks(23, 2)
    )


class Counting:
    """A sampler that counts what was taken of it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.taken = 0

    def __iter__(self) -> Iterator[int]:
        for index in range(self.count):
            self.taken += 1
            yield index

    def __len__(self) -> int:
        return self.count


@pytest.mark.parametrize(("workers", "factor"), [(1, None), (2, None), (2, 1), (3, 4)])
def test_the_sampler_runs_ahead_by_prefetch_factor_batches_per_worker(
    front: Front, workers: int, factor: int | None
) -> None:
    sampler = Counting(30)
    ahead = workers * (2 if factor is None else factor)
    iterator = iter(front.DataLoader(Numbers(30), sampler=sampler, num_workers=workers, prefetch_factor=factor))
    assert sampler.taken == ahead
    for number in range(1, 5):
        next(iterator)
        assert sampler.taken == ahead + number


def test_a_finished_batch_that_waits_for_its_turn_counts_as_one_ahead(front: Front, gate: Gate, wire: Wire) -> None:
    class Reporting(Numbers):
        def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
            if index == 0:
                gate.wait()
            wire.send(index)
            return super().__getitem__(index)

    sampler = Counting(20)
    iterator = iter(front.DataLoader(Reporting(20), sampler=sampler, num_workers=2, prefetch_factor=2))
    assert [wire.receive(), wire.receive()] == [1, 3]  # worker 1 has done its share
    assert sampler.taken == 4
    gate.open()
    assert len(list(iterator)) == 20


def test_fewer_batches_than_workers_are_enough(front: Front) -> None:
    assert flat(front.DataLoader([7], num_workers=3)) == [7]


def test_an_empty_dataset_gives_no_batches(front: Front) -> None:
    assert list(front.DataLoader([], num_workers=2)) == []


def test_a_dataset_that_grows_is_read_to_its_new_end(front: Front) -> None:
    data = [0, 1]
    loader = front.DataLoader(data, num_workers=1)
    assert flat(loader) == [0, 1]
    data.append(2)
    assert flat(loader) == [0, 1, 2]
    assert len(loader) == 3


# -- Workers: who they are


def test_worker_info_in_a_worker_tells_number_count_seed_and_its_own_dataset(front: Front) -> None:
    class Asking(Numbers):
        def __getitem__(self, index: int) -> Any:
            info = front.get_worker_info()
            return [info.id, info.num_workers, info.seed == torch.initial_seed(), info.dataset is self]

    assert front.get_worker_info() is None
    batches = front.DataLoader(Asking(4), collate_fn=identity, num_workers=2)
    assert list(batches) == [[[number % 2, 2, True, True]] for number in range(4)]
    assert front.get_worker_info() is None


def test_seeds_of_workers_follow_each_other_from_the_epochs_base_seed(front: Front) -> None:
    dataset = WhoAmI(6, front.get_worker_info)
    seeds = [batch[0, 5].item() for batch in front.DataLoader(dataset, num_workers=3)]
    assert seeds == [seeds[0], seeds[0] + 1, seeds[0] + 2] * 2


class Random(Numbers):
    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        return np.array([random.random(), np.random.rand(), torch.rand(()).item(), index])


@pytest.mark.parametrize("persistent", [False, True])
def test_no_two_workers_and_no_two_epochs_draw_the_same_random_numbers(front: Front, persistent: bool) -> None:
    with front.DataLoader(Random(12), num_workers=3, persistent_workers=persistent) as loader:
        drawn = [number for _ in range(2) for batch in loader for number in batch[0, :3].tolist()]
    assert len(set(drawn)) == len(drawn) == 72


def _generator(front: Front, seed: int) -> Any:
    return np.random.default_rng(seed) if front.name == "numpy" else torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shuffle", [False, True])
def test_equal_generators_give_equal_epochs(front: Front, shuffle: bool) -> None:
    def epochs() -> list[Any]:
        options = {"num_workers": 2, "shuffle": shuffle, "generator": _generator(front, 42)}
        loader = front.DataLoader(Random(8), **options)
        return [values(loader) for _ in range(2)]

    first = epochs()
    assert first == epochs()
    assert first[0] != first[1]


def test_a_seed_set_in_worker_init_fn_is_what_samples_draw_from(front: Front) -> None:
    def seed(worker_id: int) -> None:
        random.seed(100 + worker_id)
        np.random.seed(100 + worker_id)
        torch.manual_seed(100 + worker_id)

    drawn = [batch[0, :3].tolist() for batch in front.DataLoader(Random(2), num_workers=2, worker_init_fn=seed)]
    for worker_id, numbers in enumerate(drawn):
        seed(worker_id)
        assert numbers == [random.random(), np.random.rand(), torch.rand(()).item()]


def test_a_torch_worker_is_a_daemon_that_computes_in_one_thread_and_is_named_as_torch_names_it() -> None:
    class Asking(Numbers):
        def __getitem__(self, index: int) -> Any:
            name = Path("/proc/self/comm").read_text().strip()
            return [torch.get_num_threads(), name, torch.multiprocessing.current_process().daemon]

    (batch,) = forebay.torch.DataLoader(Asking(1), collate_fn=identity, num_workers=1)
    assert batch == [[1, "pt_data_worker", True]]


def test_worker_init_fn_runs_once_per_worker_before_any_sample_and_may_be_a_closure(front: Front, wire: Wire) -> None:
    class Sending(Numbers):
        def __getitem__(self, index: int) -> Any:
            wire.send(1000 + index)
            return super().__getitem__(index)

    started = []

    def init(worker_id: int) -> None:
        started.append(worker_id)
        assert len(started) == 1
        wire.send(worker_id)

    assert len(list(front.DataLoader(Sending(5), num_workers=1, worker_init_fn=init))) == 5
    assert wire.drain() == [0, 1000, 1001, 1002, 1003, 1004]
    assert started == []


def test_worker_init_fn_may_change_the_workers_own_dataset_copy(front: Front) -> None:
    def init(worker_id: int) -> None:
        front.get_worker_info().dataset.mark = 10 + worker_id

    dataset = WhoAmI(4, front.get_worker_info)
    loader = front.DataLoader(dataset, num_workers=2, worker_init_fn=init)
    assert [batch[0, 4].item() for batch in loader] == [10, 11, 10, 11]
    assert dataset.mark == 0


class Initialising(WhoAmI):
    def begin(self, worker_id: int) -> None:
        info = self.info()
        info.dataset.mark = 10 + worker_id


def test_worker_init_fn_may_be_a_method_of_the_dataset(front: Front) -> None:
    dataset = Initialising(4, front.get_worker_info)
    loader = front.DataLoader(dataset, num_workers=2, worker_init_fn=dataset.begin)
    assert [batch[0, 4].item() for batch in loader] == [10, 11, 10, 11]


def test_an_exception_of_worker_init_fn_takes_the_place_of_that_workers_first_batch(front: Front) -> None:
    def init(worker_id: int) -> None:
        if worker_id == 1:
            raise OSError("no licence")

    iterator = iter(front.DataLoader(Numbers(6), num_workers=2, worker_init_fn=init))
    assert next(iterator)[0, 0] == 0
    with pytest.raises(OSError, match="no licence"):
        next(iterator)
    assert next(iterator)[0, 0] == Numbers(6)[2][0]


def test_without_persistence_every_epoch_has_new_processes_and_a_fresh_copy_of_the_dataset(front: Front) -> None:
    inits = Wire()
    dataset = WhoAmI(4, front.get_worker_info)
    loader = front.DataLoader(dataset, num_workers=2, worker_init_fn=inits.send)
    first = torch.cat([torch.as_tensor(batch) for batch in loader])
    dataset.mark = 7
    second = torch.cat([torch.as_tensor(batch) for batch in loader])
    assert not set(first[:, 2].tolist()) & set(second[:, 2].tolist())
    assert first[:, 3].tolist() == second[:, 3].tolist() == [1, 1, 2, 2]
    assert (first[:, 4].tolist(), second[:, 4].tolist()) == ([0] * 4, [7] * 4)
    assert sorted(inits.drain()) == [0, 0, 1, 1]
    assert dataset.made == 0
    inits.close()


def test_persistent_workers_keep_their_process_their_dataset_and_what_it_has_become(front: Front) -> None:
    inits = Wire()
    dataset = WhoAmI(4, front.get_worker_info)
    with front.DataLoader(dataset, num_workers=2, worker_init_fn=inits.send, persistent_workers=True) as loader:
        first = torch.cat([torch.as_tensor(batch) for batch in loader])
        dataset.mark = 7  # today's dataset is not the workers'
        second = torch.cat([torch.as_tensor(batch) for batch in loader])
    assert first[:, 2].tolist() == second[:, 2].tolist()
    assert second[:, 3].tolist() == [3, 3, 4, 4]
    assert second[:, 4].tolist() == [0] * 4
    assert first[:, 5].tolist() == second[:, 5].tolist(), "the seeds stay, the streams go on"
    assert sorted(inits.drain()) == [0, 1]
    inits.close()


@pytest.mark.parametrize("method", START_METHODS)
@pytest.mark.parametrize("as_object", [False, True], ids=["by name", "by object"])
def test_every_start_method_serves(front: Front, method: str, as_object: bool) -> None:
    if as_object and method != "fork":
        pytest.skip("costs seconds, and differs from the name only in the constructor")
    context: Any = torch.multiprocessing.get_context(method) if as_object else method
    dataset = WhoAmI(8, front.get_worker_info)
    loader = front.DataLoader(
        dataset, batch_size=2, num_workers=2, multiprocessing_context=context, persistent_workers=True
    )
    with loader:
        for _ in range(2):
            epoch = torch.cat([torch.as_tensor(batch) for batch in loader])
            assert epoch[:, :2].tolist() == [[number, number // 2 % 2] for number in range(8)]
        assert set(epoch[:, 2].tolist()) == set(pids_of(iter(loader)))


def test_the_start_method_is_multiprocessings_own_unless_said_otherwise(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(type(torch.multiprocessing.get_context("fork"))):  # type: ignore[misc]
        class Process:
            def __init__(self, **_: Any) -> None:
                raise LookupError("the default context was asked")

    default = multiprocessing.context._default_context
    monkeypatch.setattr(default, "_actual_context", Refusing())
    with pytest.raises(LookupError, match="the default context was asked"):
        iter(front.DataLoader([1], num_workers=1))


class Unpicklable:
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> int:
        return index

    def __reduce__(self) -> Any:
        raise pickle.PicklingError("this dataset stays here")


def test_a_dataset_that_cannot_be_sent_to_a_spawned_worker_is_an_error_that_leaves_nothing_behind(front: Front) -> None:
    loader = front.DataLoader(Unpicklable(), num_workers=2, multiprocessing_context="spawn")
    gc.collect()
    before = descriptor_count()
    with pytest.raises(pickle.PicklingError, match="this dataset stays here"):
        iter(loader)
    assert not [child for child in multiprocessing.active_children() if child.name.startswith("Spawn")]
    assert descriptor_count() <= before + 1  # multiprocessing's own resource tracker may have started


# -- Errors


class Failing(Numbers):
    """Raises what `faults` says for an index."""

    def __init__(self, count: int, faults: dict[int, Callable[[], BaseException]]) -> None:
        super().__init__(count)
        self.faults = faults

    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        if index in self.faults:
            fault = self.faults[index]()
            raise fault
        return super().__getitem__(index)


def _failing(front: Front, fault: Callable[[], BaseException], **options: Any) -> tuple[Exception, Iterator[Any]]:
    """The exception in place of batch 1 (indices 2 and 3) of 4, and the iterator behind it."""
    iterator = iter(front.DataLoader(Failing(8, {3: fault}), batch_size=2, num_workers=2, **options))
    assert np.array_equal(next(iterator), Numbers(8).batch([0, 1]))
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the callers look at it
        next(iterator)
    return caught.value, iterator


def test_after_an_error_at_its_place_loading_goes_on(front: Front) -> None:
    error, iterator = _failing(front, lambda: ValueError("bad sample"))
    assert isinstance(error, ValueError)
    assert [np.asarray(batch).tolist() for batch in iterator] == [
        Numbers(8).batch(indices).tolist() for indices in ([4, 5], [6, 7])
    ]


def test_an_error_names_worker_batch_and_sample_in_a_note(front: Front) -> None:
    error, _ = _failing(front, lambda: ValueError("bad sample"))
    assert error.__notes__ == ["[forebay] worker 1, batch 1, sample index 3"]


@pytest.mark.parametrize("persistent", [False, True])
def test_the_batch_of_an_error_is_counted_from_the_epochs_begin(front: Front, persistent: bool) -> None:
    loader = front.DataLoader(Failing(4, {2: lambda: ValueError("x")}), num_workers=1, persistent_workers=persistent)
    for _ in range(2):
        iterator = iter(loader)
        next(iterator), next(iterator)
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - its note is what counts
            next(iterator)
        assert caught.value.__notes__ == ["[forebay] worker 0, batch 2, sample index 2"]
        assert len(list(iterator)) == 1
    loader.close()


class Rich(Exception):
    """Has attributes, and a constructor that wants more than a text."""

    def __init__(self, code: int, *, where: str) -> None:
        super().__init__(code)
        self.code = code
        self.where = where

    def __reduce__(self) -> Any:
        return _rich, (self.code, self.where)


def _rich(code: int, where: str) -> Rich:
    return Rich(code, where=where)


def test_the_torch_front_raises_torchs_type_and_text_with_the_original_as_cause() -> None:
    front = Front("torch", forebay.torch.DataLoader, torch.utils.data.get_worker_info, torch.Tensor)
    error, _ = _failing(front, lambda: FileNotFoundError(2, "gone", "a.jpg"))
    text = str(error)
    assert type(error) is FileNotFoundError
    assert text.startswith("Caught FileNotFoundError in DataLoader worker process 1.\nOriginal Traceback (most recent")
    assert "raise fault" in text
    assert "[Errno 2] gone: 'a.jpg'" in text
    assert isinstance(error.__cause__, FileNotFoundError)
    assert error.__cause__.filename == "a.jpg"


def test_the_numpy_front_raises_the_original_with_the_workers_traceback_as_cause() -> None:
    front = Front("numpy", forebay.DataLoader, forebay.get_worker_info, np.ndarray)
    error, _ = _failing(front, lambda: Rich(7, where="there"))
    assert type(error) is Rich
    assert (error.code, error.where) == (7, "there")
    assert "raise fault" in str(error.__cause__)


def test_an_exception_torch_cannot_construct_is_torchs_runtime_error_with_the_original_as_cause() -> None:
    front = Front("torch", forebay.torch.DataLoader, torch.utils.data.get_worker_info, torch.Tensor)
    error, _ = _failing(front, lambda: Rich(7, where="there"))
    assert type(error) is RuntimeError
    assert "Caught Rich in DataLoader worker process 1." in str(error)
    assert isinstance(error.__cause__, Rich)
    assert error.__cause__.where == "there"


def test_a_key_error_shows_the_workers_traceback_in_lines(front: Front) -> None:
    error, _ = _failing(front, lambda: KeyError("missing"))
    assert type(error) is KeyError
    shown = str(error) if front.name == "torch" else str(error.__cause__)
    assert "\n" in shown
    assert "KeyError: 'missing'" in shown


def test_the_cause_and_notes_of_a_workers_exception_are_in_the_text(front: Front) -> None:
    class Chained(Numbers):
        def __getitem__(self, index: int) -> Any:
            try:
                [].pop()
            except IndexError as inner:
                inner.add_note("look under the sofa")
                raise ValueError("outer") from inner

    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its text is what counts
        list(front.DataLoader(Chained(1), num_workers=1))
    text = str(caught.value) + str(caught.value.__cause__)
    assert all(part in text for part in ("IndexError: pop from empty list", "look under the sofa", "outer"))


def test_an_exception_of_an_unpicklable_class_still_tells_its_text_at_its_place(front: Front) -> None:
    class Local(Exception):
        pass

    error, iterator = _failing(front, lambda: Local("from a local class"))
    assert isinstance(error, RuntimeError)
    assert "Local" in str(error)
    assert "from a local class" in str(error) + str(error.__cause__)
    assert len(list(iterator)) == 2


class ExplodesWhenUnpickled(Exception):
    def __reduce__(self) -> Any:
        return _explode, ()


def _explode() -> None:
    raise MemoryError("while unpickling")


class ReducesToNonsense(Exception):
    def __reduce__(self) -> Any:
        return len, ("not an exception",)


class HoldsALock(Exception):
    def __init__(self) -> None:
        super().__init__(os.scandir("/"))


class Vast(Exception):
    def __str__(self) -> str:
        return "vast " * 4_000_000  # more than the budget


@pytest.mark.parametrize("kind", [ExplodesWhenUnpickled, ReducesToNonsense, HoldsALock, Vast])
def test_an_exception_that_cannot_travel_is_an_error_at_its_place_all_the_same(front: Front, kind: Any) -> None:
    error, iterator = _failing(front, kind, memory_budget=8 << 20)
    assert kind.__name__ in f"{type(error)}{error}{error.__cause__}"
    assert error.__notes__
    assert len(list(iterator)) == 2


@pytest.mark.parametrize("batch_size", [2, None])
def test_a_sample_that_cannot_be_pickled_is_an_error_that_names_worker_batch_and_sample(
    front: Front, batch_size: int | None
) -> None:
    class Lambdas(Numbers):
        def __getitem__(self, index: int) -> Any:
            return (lambda: index) if index == 3 else super().__getitem__(index)

    iterator = iter(front.DataLoader(Lambdas(6), batch_size=batch_size, num_workers=2, collate_fn=identity))
    good = 1 if batch_size else 3
    for _ in range(good):
        next(iterator)
    with pytest.raises(TypeError, match=r"worker 1.*sample of index 3|worker 1.*index 3") as caught:
        next(iterator)
    assert caught.value.__notes__ == [f"[forebay] worker 1, batch {good}, sample index 3"]
    assert len(list(iterator)) == (1 if batch_size else 2)


def _lambda_of(samples: list[Any]) -> Any:
    return (lambda: 0) if any(np.array_equal(sample, Numbers(6)[2]) for sample in samples) else samples


def test_a_batch_that_only_collate_fn_makes_unpicklable_is_an_error_at_its_place(front: Front) -> None:
    iterator = iter(front.DataLoader(Numbers(6), batch_size=2, num_workers=1, collate_fn=_lambda_of))
    next(iterator)
    with pytest.raises(TypeError, match="worker 0 cannot send its batch") as caught:
        next(iterator)
    assert caught.value.__notes__ == ["[forebay] worker 0, batch 1"]
    assert len(list(iterator)) == 1


def test_a_tensor_in_an_autograd_graph_is_an_error_at_its_place() -> None:
    class InGraph(Numbers):
        def __getitem__(self, index: int) -> Any:
            made = torch.arange(3.0)
            return made.requires_grad_() * 2 if index == 1 else made

    iterator = iter(forebay.torch.DataLoader(InGraph(3), num_workers=1, collate_fn=identity))
    next(iterator)
    with pytest.raises(TypeError, match="detach"):
        next(iterator)
    assert len(list(iterator)) == 1


def _refuse_odd(samples: list[Any]) -> Any:
    if samples[0][0] == Numbers(6)[2][0]:
        raise ArithmeticError("collate_fn refuses")
    return samples


def test_an_exception_of_collate_fn_is_an_error_at_its_place(front: Front) -> None:
    iterator = iter(front.DataLoader(Numbers(6), batch_size=2, num_workers=2, collate_fn=_refuse_odd))
    next(iterator)
    with pytest.raises(ArithmeticError, match="collate_fn refuses"):
        next(iterator)
    assert len(list(iterator)) == 1


def test_default_collate_that_fails_is_an_error_at_its_place(front: Front) -> None:
    class Ragged(Numbers):
        def __getitem__(self, index: int) -> Any:
            return np.zeros(3 if index == 2 else 2)

    iterator = iter(front.DataLoader(Ragged(6), batch_size=2, num_workers=2))
    next(iterator)
    with pytest.raises((RuntimeError, ValueError), match="stack expects each"):
        next(iterator)
    assert len(list(iterator)) == 1


def test_every_failing_batch_is_one_error(front: Front) -> None:
    dataset = Failing(6, {index: lambda: ValueError("always") for index in range(6)})
    iterator = iter(front.DataLoader(dataset, num_workers=2))
    for _ in range(6):
        with pytest.raises(ValueError, match="always"):
            next(iterator)
    with pytest.raises(StopIteration):
        next(iterator)


# -- Time


def test_a_batch_that_does_not_come_in_time_is_a_timeout_that_names_worker_and_batch(front: Front, gate: Gate) -> None:
    dataset = SlowFirst(6, front.get_worker_info, gate)
    iterator = iter(front.DataLoader(dataset, batch_size=2, num_workers=2, timeout=0.2))
    with pytest.raises(
        RuntimeError, match=r"DataLoader timed out after 0\.2 seconds; worker 0 .*batch 0 of indices \[0, 1\]"
    ):
        next(iterator)
    gate.open()


def test_a_batch_that_timed_out_once_can_still_be_had(front: Front, gate: Gate) -> None:
    iterator = iter(front.DataLoader(SlowFirst(4, front.get_worker_info, gate), num_workers=2, timeout=0.2))
    with pytest.raises(LoaderTimeout):
        next(iterator)
    gate.open()
    found: list[Any] = []
    while len(found) < 4:
        try:
            found.append(next(iterator)[0, 0].item())
        except LoaderTimeout:  # a busy machine
            continue
    assert found == [0, 1, 2, 3]


# -- The loader as an object


def test_what_other_attributes_were_derived_from_cannot_be_set(front: Front) -> None:
    loader = front.DataLoader([1, 2], num_workers=1)
    for name in ("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers"):
        with pytest.raises(ValueError, match=f"{name} attribute should not be set after DataLoader is initialized"):
            setattr(loader, name, getattr(loader, name))


def test_all_other_attributes_take_effect_at_the_next_iteration(front: Front, wire: Wire) -> None:
    loader = front.DataLoader(WhoAmI(6, front.get_worker_info), num_workers=1)
    next(iter(loader))
    loader.num_workers = 3
    loader.prefetch_factor = 1
    loader.collate_fn = identity
    loader.worker_init_fn = wire.send
    loader.timeout = 100
    loader.multiprocessing_context = "fork"
    loader.generator = _generator(front, 3)
    batches = list(loader)
    assert [batch[0][1] for batch in batches] == [0, 1, 2] * 2
    assert sorted(wire.drain()) == [0, 1, 2]
    before = loader.collate_fn
    assert before is identity


def test_a_loader_has_exactly_torchs_public_attributes_and_memory_budget() -> None:
    def public(loader: Any) -> set[str]:
        return {name for name in vars(loader) if not name.startswith("_")}

    theirs = public(torch.utils.data.DataLoader([1]))
    loader = forebay.torch.DataLoader([1])
    assert public(loader) == theirs | {"memory_budget"}
    list(loader)
    assert public(loader) == theirs | {"memory_budget"}


def test_every_public_attribute_is_a_constructor_argument_and_the_reverse(front: Front) -> None:
    arguments = set(inspect.signature(front.DataLoader).parameters)
    attributes = {name for name in vars(front.DataLoader([1])) if not name.startswith("_")}
    assert attributes <= arguments
    assert arguments - attributes <= {"shuffle", "multiprocessing_context"}
    assert isinstance(inspect.getattr_static(front.DataLoader, "multiprocessing_context"), property)


def test_the_torch_fronts_arguments_are_torchs_in_torchs_order_and_memory_budget() -> None:
    def arguments(kind: Any) -> list[tuple[str, Any, Any]]:
        parameters = inspect.signature(kind).parameters.values()
        return [(parameter.name, parameter.kind, parameter.default) for parameter in parameters]

    *ours, budget = arguments(forebay.torch.DataLoader)
    assert ours == arguments(torch.utils.data.DataLoader)
    assert budget == ("memory_budget", inspect.Parameter.KEYWORD_ONLY, None)


class Mine(forebay.torch.DataLoader):  # type: ignore[type-arg]
    """A subclass as frameworks have them."""


def test_a_loader_can_be_made_again_from_its_own_attributes() -> None:
    loader = Mine(list(range(6)), batch_size=2, num_workers=1, memory_budget=1 << 20)
    names = {name: value for name, value in vars(loader).items() if not name.startswith("_")}
    del names["batch_size"], names["sampler"], names["drop_last"]
    again = type(loader)(**names, multiprocessing_context=loader.multiprocessing_context)
    assert values(again) == values(loader) == [[0, 1], [2, 3], [4, 5]]
    assert again.memory_budget == 1 << 20


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda loader: pickle.loads(pickle.dumps(loader))])
@pytest.mark.parametrize("persistent", [False, True])
def test_a_loader_can_be_pickled_and_copied_with_workers_of_its_own(
    front: Front, copied: Any, persistent: bool
) -> None:
    if persistent and front.name == "torch":
        pytest.skip("as in torch, before it has workers only")
    loader = front.DataLoader(list(range(6)), batch_size=2, num_workers=1, persistent_workers=persistent)
    iterator = iter(loader)
    next(iterator)
    with copied(loader) as twin:
        assert values(twin) == [[0, 1], [2, 3], [4, 5]]
    assert values(iterator) == [[2, 3], [4, 5]]
    loader.close()


def test_a_torch_loader_can_be_pickled_before_it_has_persistent_workers() -> None:
    loader = forebay.torch.DataLoader(list(range(4)), num_workers=1, persistent_workers=True)
    with pickle.loads(pickle.dumps(loader)) as twin:
        assert flat(twin) == [0, 1, 2, 3]


def test_an_iterator_cannot_be_pickled(front: Front) -> None:
    iterator = iter(front.DataLoader([1, 2], num_workers=1))
    with pytest.raises((NotImplementedError, TypeError), match=r"cannot be pickled|cannot pickle"):
        pickle.dumps(iterator)


def test_iterators_are_instances_of_torchs_classes() -> None:
    loader = forebay.torch.DataLoader([1, 2], num_workers=1)
    assert isinstance(loader, torch.utils.data.DataLoader)
    iterator = iter(loader)
    assert isinstance(iterator, torch_dataloader._MultiProcessingDataLoaderIter)
    assert isinstance(iterator, torch_dataloader._BaseDataLoaderIter)
    assert isinstance(iter(forebay.torch.DataLoader([1])), torch_dataloader._SingleProcessDataLoaderIter)


def test_the_private_names_that_others_use_are_there() -> None:
    class Asking(Numbers):
        def __getitem__(self, index: int) -> Any:
            return os.getpid()

    loader = forebay.torch.DataLoader(Asking(4), num_workers=2, persistent_workers=True)
    assert loader._auto_collation
    assert loader._iterator is None
    pids = flat(loader)
    iterator = loader._iterator
    assert [worker.pid for worker in iterator._workers] == pids[:2]
    assert all(worker.is_alive() for worker in iterator._workers)
    iterator._shutdown_workers()
    assert [worker.exitcode for worker in iterator._workers] == [0, 0]


def test_the_profiler_sees_next_under_torchs_name() -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        assert flat(forebay.torch.DataLoader([1, 2], num_workers=1)) == [1, 2]
    names = [event.key for event in profile.key_averages()]
    assert [name for name in names if re.fullmatch(r"enumerate\(DataLoader\)#.*\.__next__", name)]


def test_a_loader_subscripts_as_a_generic() -> None:
    assert forebay.torch.DataLoader[int].__origin__ is forebay.torch.DataLoader


def test_len_is_the_number_of_batches_for_loaders_and_iterators(front: Front) -> None:
    for options, length in [
        ({"batch_size": 3}, 4),
        ({"batch_size": 3, "drop_last": True}, 3),
        ({"batch_size": None}, 10),
    ]:
        loader = front.DataLoader(Numbers(10), num_workers=1, **options)
        assert len(loader) == len(iter(loader)) == len(list(loader)) == length


@pytest.mark.parametrize("budget", [0, -1])
def test_a_memory_budget_that_is_not_positive_is_refused(front: Front, budget: int) -> None:
    with pytest.raises(ConfigError, match=f"memory_budget={budget}"):
        front.DataLoader([1], memory_budget=budget)


def test_a_memory_budget_too_small_for_the_batches_ahead_is_refused_with_numbers(front: Front) -> None:
    with pytest.raises(ValueError, match=r"at least \d+ bytes for 4 batches ahead, but is 1000"):
        iter(front.DataLoader([1], num_workers=2, memory_budget=1000))


def test_prefetch_factor_0_is_refused(front: Front) -> None:
    with pytest.raises(ValueError, match="prefetch_factor"):
        front.DataLoader([1], num_workers=1, prefetch_factor=0)


def test_more_workers_than_cpus_are_warned_of_at_construction_and_at_every_start(front: Front) -> None:
    workers = len(os.sched_getaffinity(0)) + 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loader = front.DataLoader([1], num_workers=workers)
        list(loader)
    texts = [str(warning.message) for warning in caught]
    assert [f"will create {workers} worker processes" in text for text in texts] == [True, True]


# -- What the engine does not serve yet


class Stream(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[int]:
        info = torch.utils.data.get_worker_info()
        return iter([0, 1, 2]) if info is None else iter([info.id * 10, info.id * 10 + 1])


def test_an_iterable_dataset_goes_to_torchs_own_iterator_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay._fallback._said", set())
    loader = forebay.torch.DataLoader(Stream(), num_workers=2)
    with pytest.warns(FallbackWarning, match="iterable datasets") as caught:
        epochs = [sorted(flat(iter(loader))) for _ in range(2)]
    assert epochs == [[0, 1, 10, 11]] * 2
    assert len([warning for warning in caught if warning.category is FallbackWarning]) == 1
    assert type(iter(loader)) is torch_dataloader._MultiProcessingDataLoaderIter
    assert caught[0].filename == __file__


def test_an_iterable_dataset_without_workers_needs_no_words() -> None:
    assert flat(forebay.torch.DataLoader(Stream())) == [0, 1, 2]


def test_pin_memory_without_an_accelerator_changes_nothing_and_is_served() -> None:
    if torch.accelerator.is_available():
        pytest.skip("there is an accelerator")
    iterator = iter(forebay.torch.DataLoader([1, 2], num_workers=1, pin_memory=True))
    assert journey_of(iterator)
    assert flat(iterator) == [1, 2]


def test_the_numpy_front_refuses_iterable_datasets_and_says_what_to_use() -> None:
    with pytest.raises(NotImplementedError, match=r"forebay\.torch\.DataLoader"):
        forebay.DataLoader(Stream())


# -- Iterators: several, abandoned, closed


def test_iter_of_a_persistent_loader_is_the_same_iterator(front: Front) -> None:
    with front.DataLoader([1, 2, 3], num_workers=1, persistent_workers=True) as loader:
        first = iter(loader)
        next(first)
        assert iter(loader) is first
        assert flat(first) == [1, 2, 3]
    plain = front.DataLoader([1, 2, 3], num_workers=1)
    assert iter(plain) is not iter(plain)


def test_an_iterator_iterates_over_itself(front: Front) -> None:
    iterator = iter(front.DataLoader([1, 2, 3], num_workers=1))
    assert iter(iterator) is iterator
    assert next(iterator).tolist() == [1]
    assert flat(iterator) == [2, 3]


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("taken", [0, 1, 4])
def test_after_an_early_break_the_next_epoch_is_whole(front: Front, persistent: bool, taken: int) -> None:
    dataset = Numbers(40, size=2000)
    with front.DataLoader(dataset, batch_size=3, num_workers=2, persistent_workers=persistent) as loader:
        for _ in range(3):
            assert len(list(islice(iter(loader), taken))) == taken
        dataset.assert_epoch(list(loader), 3)


def test_an_abandoned_iterator_leaves_no_process(front: Front) -> None:
    iterator = iter(front.DataLoader(Numbers(100), num_workers=2))
    pids = pids_of(iterator)
    next(iterator)
    del iterator
    assert not [pid for pid in pids if exists(pid)]


def test_two_loops_over_one_loader_can_be_nested(front: Front) -> None:
    loader = front.DataLoader([0, 1, 2], num_workers=2)
    pairs = [(outer.item(), inner.item()) for outer in loader for inner in loader]
    assert pairs == [(outer, inner) for outer in range(3) for inner in range(3)]


def test_two_loaders_can_be_read_side_by_side(front: Front) -> None:
    one, other = (front.DataLoader(Numbers(9, size), batch_size=2, num_workers=2) for size in (1000, 2000))
    pairs = list(zip(one, other, strict=True))
    Numbers(9, 1000).assert_epoch([pair[0] for pair in pairs], 2)
    Numbers(9, 2000).assert_epoch([pair[1] for pair in pairs], 2)


def test_both_fronts_can_be_read_side_by_side() -> None:
    loaders = [
        kind(Numbers(9, 1000), batch_size=2, num_workers=1) for kind in (forebay.DataLoader, forebay.torch.DataLoader)
    ]
    for ours, tensors in zip(*loaders, strict=True):
        assert isinstance(ours, np.ndarray)
        assert np.array_equal(ours, tensors.numpy())


@pytest.mark.parametrize("persistent", [False, True])
def test_close_ends_all_workers_and_may_be_called_again(front: Front, persistent: bool) -> None:
    loader = front.DataLoader(Numbers(50), num_workers=2, persistent_workers=persistent)
    iterators = [iter(loader) for _ in range(2)]
    pids = [pid for iterator in iterators for pid in pids_of(iterator)]
    next(iterators[0])
    for _ in range(2):
        loader.close()
        assert not [pid for pid in pids if exists(pid)]


def test_with_ends_all_workers_when_the_block_raises(front: Front) -> None:
    with contextlib.suppress(ZeroDivisionError), front.DataLoader(Numbers(50), num_workers=2) as loader:
        iterator = iter(loader)
        pids = pids_of(iterator)
        assert all(is_running(pid) for pid in pids)
        1 / 0  # noqa: B018 - the exception is what is wanted
    assert not [pid for pid in pids if exists(pid)]


def test_an_iterator_of_a_closed_loader_is_over(front: Front) -> None:
    loader = front.DataLoader(Numbers(50), num_workers=2)
    iterator = iter(loader)
    next(iterator)
    loader.close()
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(iterator)


@pytest.mark.parametrize("persistent", [False, True])
def test_a_closed_loader_starts_anew_when_it_is_iterated_again(front: Front, persistent: bool) -> None:
    dataset = Numbers(10)
    loader = front.DataLoader(dataset, num_workers=2, persistent_workers=persistent)
    old = iter(loader)
    next(old)
    loader.close()
    dataset.assert_epoch(list(loader), 1)
    loader.close()


def test_closing_a_loader_without_workers_does_nothing(front: Front) -> None:
    with front.DataLoader([1, 2]) as loader:
        assert flat(loader) == [1, 2]
    assert flat(loader) == [1, 2]


# -- Samplers and indices


class Breaking:
    """A sampler that raises after `good` indices."""

    def __init__(self, good: int) -> None:
        self.good = good

    def __iter__(self) -> Iterator[int]:
        yield from range(self.good)
        raise ConnectionError("the index server is gone")

    def __len__(self) -> int:
        return 100


def test_an_error_of_the_sampler_comes_after_the_batches_before_it(front: Front) -> None:
    iterator = iter(front.DataLoader(Numbers(100), sampler=Breaking(10), num_workers=2))
    found, error = until(ConnectionError, iterator)
    assert "index server" in str(error)
    Numbers(10).assert_epoch(found, 1)


def test_an_error_of_the_sampler_while_it_runs_ahead_leaves_no_process(front: Front) -> None:
    before = {child.pid for child in multiprocessing.active_children()}
    with pytest.raises(ConnectionError, match="index server"):
        list(front.DataLoader(Numbers(100), sampler=Breaking(2), num_workers=2))
    assert {child.pid for child in multiprocessing.active_children()} <= before


def test_persistent_workers_survive_an_error_of_the_sampler(front: Front) -> None:
    sampler = Breaking(10)
    with front.DataLoader(Numbers(100), sampler=sampler, num_workers=2, persistent_workers=True) as loader:
        with pytest.raises(ConnectionError):
            list(loader)
        pids = pids_of(loader._iterator)
        sampler.good = 8
        with pytest.raises(ConnectionError):
            list(loader)
        assert pids_of(loader._iterator) == pids


class Bulk(Numbers):
    """Remembers how it was asked."""

    def __getitem__(self, index: Any) -> Any:
        raise AssertionError("samples are read in bulk")

    def __getitems__(self, indices: Any) -> list[Any]:
        return [[type(indices).__name__, len(indices), index] for index in indices]


@pytest.mark.parametrize("workers", [0, 2])
def test_getitems_is_called_once_per_batch(front: Front, workers: int) -> None:
    batches = list(front.DataLoader(Bulk(5), batch_size=2, num_workers=workers, collate_fn=identity))
    assert batches == [
        [["list", 2, 0], ["list", 2, 1]],
        [["list", 2, 2], ["list", 2, 3]],
        [["list", 1, 4]],
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_without_batch_size_samples_come_one_by_one(front: Front, workers: int) -> None:
    samples = list(front.DataLoader(Numbers(5, 1000), batch_size=None, num_workers=workers))
    assert all(isinstance(sample, front.array) for sample in samples)
    assert np.array_equal(np.stack([np.asarray(sample) for sample in samples]), Numbers(5, 1000).batch(range(5)))


def test_without_batch_size_a_sampler_may_give_lists_for_bulk_loading(front: Front) -> None:
    class Table:
        def __getitem__(self, rows: list[int]) -> Any:
            assert type(rows) is list
            return np.arange(100).reshape(10, 10)[rows]

    loader = front.DataLoader(Table(), batch_size=None, sampler=[[0, 1], [5], [9, 9, 9]], num_workers=2)
    assert [len(batch) for batch in loader] == [2, 1, 3]


INDICES = [
    3, True, 2**63 - 1, -(2**63), 2**70, -1, 1.5, "key", b"k", None, (1, 2), [1, [2]], {"a": 1}, frozenset({1}),
    slice(1, 2), np.int64(3), np.float32(1.5), torch.tensor(3),
]  # fmt: skip


class Echo:
    """The sample is the index, as a text that tells its type."""

    def __getitem__(self, index: Any) -> str:
        return f"{type(index).__qualname__} {index!r}"


@pytest.mark.parametrize("workers", [0, 1])
def test_indices_reach_the_dataset_as_the_sampler_gave_them(front: Front, workers: int) -> None:
    wanted = [Echo()[index] for index in INDICES]
    assert list(front.DataLoader(Echo(), batch_size=None, sampler=INDICES, num_workers=workers)) == wanted
    batches = front.DataLoader(Echo(), batch_sampler=[[index] for index in INDICES], num_workers=workers)
    assert [batch[0] for batch in batches] == wanted


class EchoBatch(Echo):
    def __getitems__(self, indices: Any) -> Any:
        return [f"{type(indices).__qualname__} {indices!r}"]


@pytest.mark.parametrize("batch", [[1, 2], (1, 2), range(3), [], [True, 1], [2**63], np.arange(3)], ids=repr)
def test_what_a_batch_sampler_gives_reaches_getitems_as_it_is(front: Front, batch: Any) -> None:
    wanted = EchoBatch().__getitems__(batch)
    assert next(iter(front.DataLoader(EchoBatch(), batch_sampler=[batch], num_workers=1))) == wanted


def test_a_batch_sampler_may_give_batches_of_changing_sizes(front: Front) -> None:
    sampler = [[0], [1, 2, 3], [4, 5], [6] * 50]
    batches = list(front.DataLoader(Numbers(10, 300), batch_sampler=sampler, num_workers=2))
    for indices, batch in zip(sampler, batches, strict=True):
        assert np.array_equal(np.asarray(batch), Numbers(10, 300).batch(indices))


def test_an_index_that_cannot_be_pickled_is_an_error_and_no_hang(front: Front) -> None:
    loader = front.DataLoader(Echo(), batch_size=None, sampler=[lambda: 0], num_workers=1)
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        list(loader)


def test_a_large_batch_of_indices_travels(front: Front) -> None:
    (batch,) = front.DataLoader(range(300_000), batch_size=300_000, num_workers=1)
    assert batch.tolist() == list(range(300_000))
