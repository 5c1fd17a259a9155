"""Objects that can tell and restore their own state, as torchdata's protocol has it: datasets, iterators, samplers."""

import pickle
from typing import TYPE_CHECKING, Any, TypeAlias

from forebay._cursor import Standing
from forebay.errors import StateError, UnpicklableError

if TYPE_CHECKING:
    from forebay._fetch import StreamFetcher

__all__ = ["Held", "held_as", "is_stateful", "pack", "restore", "restore_iterator", "standing_of", "tell"]
__all__ += ["tell_of", "unpack"]

Held: TypeAlias = dict[str, Any]
"""What a dataset and an iterator over it told: `dataset`, `iterator` (each only if it is stateful), `ended`; with a
seed also `place`, how many samples the iterator has given."""


def is_stateful(thing: Any) -> bool:
    """Whether `thing` has `state_dict` and `load_state_dict` to be asked: a class has them for its instances."""
    if isinstance(thing, type):
        return False
    return callable(getattr(thing, "state_dict", None)) and callable(getattr(thing, "load_state_dict", None))


def tell(dataset: Any, iterator: Any = None, *, ended: bool = False, place: int | None = None) -> Held | None:
    """Asks a dataset and, for a stream, the iterator over it. None if neither is stateful."""
    held: Held = {}
    if is_stateful(iterator):
        held["iterator"] = iterator.state_dict()
    if iterator is not dataset and is_stateful(dataset):
        held["dataset"] = dataset.state_dict()
    if held and ended:
        held["ended"] = True
    if held and place is not None:
        held["place"] = place
    return held or None


def tell_of(dataset: Any, stream: "StreamFetcher | None") -> Held | None:
    """The same of a dataset and, if it is read by iteration, of what reads it."""
    if stream is None:
        return tell(dataset)
    return tell(dataset, stream.samples, ended=stream.ended, place=stream.place)


def pack(held: Held, who: str) -> bytes:
    """`held`, for its way from a worker to the trainer."""
    try:
        return pickle.dumps(held, protocol=5)
    except Exception as error:
        raise UnpicklableError(
            f"{who} cannot send the state of its dataset to the trainer: {error}. What state_dict() returns must be "
            "picklable, and of plain types if it is to be written as JSON."
        ) from error


def unpack(data: bytes) -> Held:
    """The inverse of `pack`."""
    held: Held = pickle.loads(data)
    return held


def standing_of(held: Held) -> Standing:
    """How far a worker is, from what a state has of it."""
    told: Held = {name: held[name] for name in ("dataset", "iterator", "ended", "place") if name in held}
    return Standing(int(held.get("batches", 0)), pack(told, "this process") if told else None)


def held_as(standing: Standing, *, stream: bool) -> Held:
    """The inverse of `standing_of`."""
    held = {} if standing.state is None else unpack(standing.state)
    return {"batches": standing.batches, **held} if stream else held


def restore(dataset: Any, held: Held) -> None:
    """Gives a dataset its state back, before it is used or iterated over."""
    if "dataset" in held:
        _load(dataset, held["dataset"], "dataset")


def restore_iterator(iterator: Any, held: Held) -> None:
    """Gives the iterator over a stream its state back."""
    if "iterator" in held:
        _load(iterator, held["iterator"], "iterator over the dataset")


def _load(thing: Any, state: Any, role: str) -> None:
    if not is_stateful(thing):
        raise StateError(
            f"this state has a state of the {role}, but {type(thing).__qualname__} has no state_dict and "
            "load_state_dict: resume with the class that the state was taken of"
        )
    thing.load_state_dict(state)
