"""1.3 Length: of loaders over both kinds of datasets, and the warning of streams that give more."""

import re
import warnings
from typing import Any

import pytest
from subjects import Sized, Squares, Stream

from support import flat


@pytest.mark.parametrize(
    ("options", "length"),
    [({}, 10), ({"batch_size": 3}, 4), ({"batch_size": 3, "drop_last": True}, 3), ({"batch_size": None}, 10)],
    ids=str,
)
def test_the_length_is_the_number_of_batches(kind: Any, options: dict[str, Any], length: int) -> None:
    loader = kind(Squares(10), **options)
    assert len(loader) == len(list(loader)) == length
    streaming = kind(Sized(10, 10), **options)
    assert len(streaming) == len(list(streaming)) == length


def test_the_length_is_that_of_the_sampler(kind: Any) -> None:
    assert len(kind(Squares(10), sampler=[1, 2, 3], batch_size=2)) == 2
    assert len(kind(Squares(10), sampler=[1, 2, 3], batch_size=None)) == 3
    assert len(kind(Squares(10), batch_sampler=[[1, 2], [3]])) == 2


def test_without_the_length_of_sampler_or_stream_there_is_none(kind: Any) -> None:
    for loader in (kind(Stream(3)), kind(Squares(3), batch_sampler=(batch for batch in [[0]]))):
        with pytest.raises(TypeError):
            len(loader)


def test_the_length_of_a_stream_is_remembered(kind: Any) -> None:
    loader = kind(Sized(10, 7), batch_size=2)
    assert loader._IterableDataset_len_called is None
    assert len(loader) == 4
    assert loader._IterableDataset_len_called == 7


WORKERS = (
    "For multiprocessing data-loading, this could be caused by not properly configuring the IterableDataset replica at "
    "each worker. Please see https://pytorch.org/docs/stable/data.html#torch.utils.data.IterableDataset for examples."
)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_longer_than_it_said_is_warned_of_at_each_further_batch(kind: Any, workers: int) -> None:
    dataset = Sized(4, 2)
    loader = kind(dataset, num_workers=workers)
    assert len(loader) == 2
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = len(list(loader))
    assert count == 4 * max(workers, 1)
    told = f"Length of IterableDataset {dataset} was reported to be 2(when accessing len(dataloader)), but "
    texts = [str(warning.message) for warning in caught if "Length of" in str(warning.message)]
    assert texts == [
        f"{told}{number} samples have been fetched. {WORKERS if workers else ''}" for number in range(3, count + 1)
    ]


def test_what_is_counted_against_the_length_are_batches(kind: Any) -> None:
    loader = kind(Sized(4, 2), batch_size=2)
    assert len(loader) == 1
    assert flat(loader) == [0, 1, 2, 3]


def test_a_stream_whose_length_was_not_asked_for_before_iter_is_not_warned_of(kind: Any) -> None:
    loader = kind(Sized(3, 2), num_workers=1)
    iterator = iter(loader)
    assert len(loader) == 2
    assert flat(iterator) == [0, 1, 2]
    with pytest.warns(UserWarning, match=re.escape("but 3 samples have been fetched")):
        list(loader)


def test_a_persistent_iterator_learns_the_length_at_its_next_epoch(kind: Any) -> None:
    loader = kind(Sized(3, 2), num_workers=1, persistent_workers=True)
    assert flat(loader) == [0, 1, 2]
    assert len(loader) == 2
    with pytest.warns(UserWarning, match=re.escape("but 3 samples have been fetched")):
        list(loader)
