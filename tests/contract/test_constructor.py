"""1.1 Constructor: what is refused, in which words, and what is derived."""

import gc
import inspect
import os
import re
import sys
import warnings
from typing import Any

import pytest
import torch
from laws import differs
from subjects import Squares, Stream
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler, default_collate, default_convert
from torch.utils.data.dataloader import _DatasetKind, _InfiniteConstantSampler

from support import flat, values

ONE = {"num_workers": 1}
BOUNDS = "batch_size should be a positive integer value, but got batch_size="
EXCLUSIVE = "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last"

NOT_WITHOUT_WORKERS = (
    "prefetch_factor option could only be specified in multiprocessing.let num_workers > 0 to enable multiprocessing, "
    "otherwise set prefetch_factor to None."
)
NO_SUCH_METHOD = (
    "multiprocessing_context option should specify a valid start method in "
    f"{torch.multiprocessing.get_all_start_methods()!r}, but got multiprocessing_context='bad'"
)

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"num_workers": -1}, "num_workers option should be non-negative; use num_workers=0 to disable multiprocessing."),
    ({"timeout": -1}, "timeout option should be non-negative"),
    ({"prefetch_factor": 2}, NOT_WITHOUT_WORKERS),
    ({**ONE, "prefetch_factor": -1}, "prefetch_factor option should be non-negative"),
    ({"persistent_workers": True}, "persistent_workers option needs num_workers > 0"),
    (
        {"multiprocessing_context": "fork"},
        "multiprocessing_context can only be used with multi-process loading (num_workers > 0), but got num_workers=0",
    ),
    ({**ONE, "multiprocessing_context": "bad"}, NO_SUCH_METHOD),
    ({"sampler": [0], "shuffle": True}, "sampler option is mutually exclusive with shuffle"),
    ({"sampler": [0], "shuffle": 3}, "sampler option is mutually exclusive with shuffle"),
    ({"batch_sampler": [[0]], "batch_size": 2}, EXCLUSIVE),
    ({"batch_sampler": [[0]], "shuffle": True}, EXCLUSIVE),
    ({"batch_sampler": [[0]], "sampler": [0]}, EXCLUSIVE),
    ({"batch_sampler": [[0]], "drop_last": True}, EXCLUSIVE),
    (
        {"batch_size": None, "drop_last": True},
        "batch_size=None option disables auto-batching and is mutually exclusive with drop_last",
    ),
    *(({"batch_size": size}, f"{BOUNDS}{size}") for size in (0, -1, 1.5, True)),
    ({"drop_last": "yes"}, "drop_last should be a boolean value, but got drop_last=yes"),
]


@pytest.mark.parametrize(("options", "text"), REFUSED, ids=[str(options) for options, _ in REFUSED])
def test_a_value_that_cannot_serve_is_a_value_error_in_torchs_words(
    kind: Any, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        kind([1, 2], **options)


def test_a_context_of_another_type_is_a_type_error(kind: Any) -> None:
    text = (
        "multiprocessing_context option should be a valid context object or a string specifying the start method, "
        "but got multiprocessing_context=7"
    )
    with pytest.raises(TypeError, match=re.escape(text)):
        kind([1], num_workers=1, multiprocessing_context=7)


def test_an_empty_dataset_cannot_be_shuffled(kind: Any) -> None:
    with pytest.raises(ValueError, match="num_samples should be a positive integer value, but got num_samples=0"):
        kind([], shuffle=True)


@pytest.mark.parametrize(
    ("options", "name"),
    [({"shuffle": True}, "shuffle"), ({"sampler": [0]}, "sampler"), ({"batch_sampler": [[0]]}, "batch_sampler")],
)
def test_a_stream_takes_neither_shuffle_nor_samplers(kind: Any, options: dict[str, Any], name: str) -> None:
    text = f"DataLoader with IterableDataset: expected unspecified {name} option, but got {name}={options[name]}"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        kind(Stream(2), **options)


def test_a_stream_takes_shuffle_false(kind: Any) -> None:
    assert flat(kind(Stream(2), shuffle=False)) == [0, 1]


TWICE_WRONG: list[tuple[Any, dict[str, Any], str]] = [
    ([1], {"num_workers": -1, "timeout": -1}, "num_workers option"),
    ([1], {"timeout": -1, "prefetch_factor": 2}, "timeout option"),
    ([1], {"timeout": -1, **ONE, "prefetch_factor": 0}, "timeout option"),
    ([1], {"prefetch_factor": 2, "persistent_workers": True}, "prefetch_factor option could only"),
    ([1], {**ONE, "prefetch_factor": -1, "multiprocessing_context": "bad"}, "prefetch_factor option should be non-neg"),
    ([1], {"persistent_workers": True, "multiprocessing_context": "fork"}, "persistent_workers option"),
    ([1], {"multiprocessing_context": "fork", "sampler": [0], "shuffle": True}, "multiprocessing_context can only"),
    (Stream(1), {"multiprocessing_context": "fork", "shuffle": True}, "multiprocessing_context can only"),
    (Stream(1), {"shuffle": True, "sampler": [0]}, "expected unspecified shuffle"),
    (Stream(1), {"sampler": [0], "batch_sampler": [[0]]}, "expected unspecified sampler"),
    (Stream(1), {"batch_sampler": [[0]], "batch_size": 2}, "expected unspecified batch_sampler"),
    ([1], {"sampler": [0], "shuffle": True, "batch_sampler": [[0]]}, "mutually exclusive with shuffle"),
    ([1], {"batch_sampler": [[0]], "batch_size": None, "drop_last": True}, "batch_sampler option is"),
    ([], {"batch_size": None, "drop_last": True, "shuffle": True}, "batch_size=None option"),
    ([], {"shuffle": True, "batch_size": 0}, "num_samples should be"),
    ([1], {"batch_size": 0, "drop_last": "yes"}, "batch_size should be"),
]


@pytest.mark.parametrize(("dataset", "options", "text"), TWICE_WRONG, ids=[str(row[1]) for row in TWICE_WRONG])
def test_of_two_faults_the_one_that_torch_checks_first_is_told(
    kind: Any, dataset: Any, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        kind(dataset, **options)


@differs(
    "a loader that can never be read is refused where it is made",
    torch="is constructed; `AssertionError` at `iter()`, and another error, ignored, when the iterator dies",
    ours="`ConfigError`, a `ValueError`, from the constructor",
)
def test_prefetch_factor_0_is_refused(kind: Any, stock: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not stock:
        with pytest.raises(ValueError, match="prefetch_factor option should be positive"):
            kind([1], num_workers=1, prefetch_factor=0)
        return
    ignored: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: ignored.append(unraisable.exc_type))
    loader = kind([1], num_workers=1, prefetch_factor=0)
    with pytest.raises(AssertionError, match="prefetch_factor must be greater than 0") as failed:
        iter(loader)
    failed.value.with_traceback(None)
    del failed
    gc.collect()
    assert ignored == [AttributeError]


WRONG_TYPES: list[dict[str, Any]] = [
    {"num_workers": "2"},
    {"timeout": "5"},
    {"collate_fn": 5},
    {**ONE, "prefetch_factor": "2"},
    {**ONE, "worker_init_fn": 5},
    {"generator": 7},
]


@differs(
    "one message that names the option and its value, and none of them later",
    torch="a `TypeError` of Python's, where the value is first used: in the constructor, at `iter()` or in a worker",
    ours="a `TypeError` from the constructor that names the option",
)
@pytest.mark.parametrize("options", WRONG_TYPES, ids=str)
def test_an_option_of_the_wrong_type_is_a_type_error(kind: Any, stock: bool, options: dict[str, Any]) -> None:
    *_, name = options
    if stock:
        with pytest.raises(TypeError):
            list(kind([1, 2], **options))
    else:
        with pytest.raises(TypeError, match=f"{name} option should be"):
            kind([1, 2], **options)


def test_a_timeout_without_workers_is_refused_when_iterated(kind: Any) -> None:
    loader = kind([1], timeout=1)
    with pytest.raises(AssertionError, match="_SingleProcessDataLoaderIter requires timeout == 0"):
        iter(loader)


def test_more_workers_than_cpus_are_warned_of_at_construction_and_at_each_new_iterator(kind: Any) -> None:
    cpus = torch._utils.cpu_count()
    text = (
        f"This DataLoader will create {cpus + 1} worker processes in total. Our suggested max number of worker in "
        f"current system is {cpus}, which is smaller than what this DataLoader is going to create. Please be aware "
        "that excessive worker creation might get DataLoader running slow or even freeze, lower the worker number to "
        "avoid potential slowness/freeze if necessary."
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", message="This DataLoader will create")
        loader = kind([1], num_workers=cpus + 1)
        list(loader)
        list(loader)
    assert [str(warning.message) for warning in caught if warning.category is UserWarning] == [text] * 3


def test_as_many_workers_as_cpus_are_not_warned_of(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kind([1], num_workers=3)


def test_arguments_have_torchs_names_places_and_defaults(kind: Any) -> None:
    theirs = list(inspect.signature(torch.utils.data.DataLoader).parameters.values())
    ours = list(inspect.signature(kind).parameters.values())
    described = [(parameter.name, parameter.kind, parameter.default) for parameter in ours]
    assert described[: len(theirs)] == [(parameter.name, parameter.kind, parameter.default) for parameter in theirs]
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in ours[len(theirs) :])


def test_the_first_thirteen_arguments_may_be_given_by_place(kind: Any) -> None:
    generator = torch.Generator()
    loader = kind(Squares(9), 2, False, None, None, 1, list, False, True, 9.0, print, "fork", generator)
    assert (loader.batch_size, loader.num_workers, loader.drop_last, loader.timeout) == (2, 1, True, 9.0)
    assert (loader.collate_fn, loader.worker_init_fn, loader.generator) == (list, print, generator)
    assert loader.multiprocessing_context.get_start_method() == "fork"
    with pytest.raises(TypeError, match="positional argument"):
        kind(Squares(9), 2, False, None, None, 1, list, False, True, 9.0, print, "fork", generator, 4)


def test_a_loader_subscripts_as_a_generic(kind: Any) -> None:
    assert kind[int].__origin__ is kind


def test_the_dataset_kind_is_told(kind: Any) -> None:
    assert kind([1])._dataset_kind == _DatasetKind.Map == 0
    assert kind(Stream(1))._dataset_kind == _DatasetKind.Iterable == 1


def test_default_samplers_are_torchs(kind: Any) -> None:
    generator = torch.Generator()
    shuffled = kind(Squares(3), shuffle=True, generator=generator).sampler
    assert type(shuffled) is RandomSampler
    assert (shuffled.data_source.count, shuffled.generator) == (3, generator)
    assert type(kind(Squares(3)).sampler) is SequentialSampler
    endless = kind(Stream(3)).sampler
    assert type(endless) is _InfiniteConstantSampler
    assert [index for index, _ in zip(endless, range(3), strict=False)] == [None] * 3


def test_the_batch_sampler_is_torchs_over_the_sampler(kind: Any) -> None:
    loader = kind(Squares(7), batch_size=2, drop_last=True)
    assert type(loader.batch_sampler) is BatchSampler
    assert loader.batch_sampler.sampler is loader.sampler
    assert (loader.batch_sampler.batch_size, loader.batch_sampler.drop_last) == (2, True)
    assert kind(Squares(7), batch_size=None).batch_sampler is None


def test_with_a_batch_sampler_batch_size_is_none_and_drop_last_is_false(kind: Any) -> None:
    loader = kind(Squares(3), batch_sampler=[[0, 1], (2,)])
    assert (loader.batch_size, loader.drop_last) == (None, False)
    assert values(loader) == [[0, 1], [4]]


def test_the_default_of_collate_fn_follows_from_batching(kind: Any) -> None:
    assert kind([1]).collate_fn is default_collate
    assert kind([1], batch_sampler=[[0]]).collate_fn is default_collate
    assert kind([1], batch_size=None).collate_fn is default_convert


def test_prefetch_factor_is_2_with_workers_and_none_without(kind: Any) -> None:
    assert (kind([1]).prefetch_factor, kind([1], num_workers=1).prefetch_factor) == (None, 2)
