"""One rank's share of a sampler with a seed."""

from dataclasses import replace
from typing import get_args

from forebay._ranks import resolve_rank
from forebay._sampler import Sampler
from forebay._seeded import Fingerprint, Indices, Order, Pass, Place, SeededSampler, SizedOrLength, length_of
from forebay._seeds import checked_epoch
from forebay._share import Share, Uneven
from forebay.errors import ConfigError

__all__ = ["ShardSampler"]


class ShardSampler(SeededSampler):
    """Yields one rank's share of an order: every place `start + rank`, then every `world`-th, as cards are dealt.

    After equally many indices on every rank, what they have had together is the beginning of the order. So a state,
    which has a place of the whole order, goes on with any number of ranks: after `samples` indices on each of `world`
    ranks the place is `start + samples * world`, where `start` is the place of the state that was loaded before, or 0;
    from there it is dealt anew. Take the states of all ranks after equally many indices, or that of one rank for all.

    Args:
        sampler_or_source: a sampler with a seed; or anything with a length, or a length, which is dealt unshuffled.
        rank: which rank this is, from 0; None for what `torch.distributed` says if the program has initialised it, else
            the environment variables RANK and WORLD_SIZE, else 0 of 1.
        world: how many ranks there are; given exactly when `rank` is.
        uneven: what happens if the indices do not divide evenly. "keep": each index exactly once, and some ranks have
            one more. "pad": all ranks have as many, the last ones from the beginning of the order. "drop": all ranks
            have as many, and what is left over is left out, in every epoch something else. Ranks that wait for one
            another in every step need "pad" or "drop".

    Raises:
        ConfigError: when the arguments or the environment make no sense, or the sampler has no seed.

    Example:
        >>> [list(ShardSampler("abcde", rank=rank, world=2)) for rank in range(2)]
        [[0, 2, 4], [1, 3]]
    """

    def __init__(
        self,
        sampler_or_source: SeededSampler | SizedOrLength,
        *,
        rank: int | None = None,
        world: int | None = None,
        uneven: Uneven = "keep",
    ) -> None:
        self.sampler = _seeded(sampler_or_source)
        super().__init__(seed=self.sampler.seed)
        self.rank, self.world = resolve_rank(rank, world)
        if uneven not in get_args(Uneven):
            raise ConfigError(f"uneven should be 'keep', 'pad' or 'drop', but got uneven={uneven!r}")
        self.uneven: Uneven = uneven

    def __len__(self) -> int:
        """Returns the number of indices of this rank."""
        return len(self._share(len(self.sampler), 0))

    def fingerprint(self) -> Fingerprint:
        """That of the sampler whose order is dealt: a state fits every rank, and any number of them."""
        return self.sampler.fingerprint()

    def order(self, epoch: int | None = None) -> Order:
        """The share of an epoch, None for that of the next pass."""
        return self._order(self.epoch if epoch is None else checked_epoch(epoch))

    def _order(self, epoch: int) -> Order:
        return self._pass_from(epoch, 0).order

    def _pass_from(self, epoch: int, position: int) -> Pass:
        order = self.sampler.order(epoch)
        return Pass(epoch, _ShareOrder(order, self._share(len(order), position)))

    def _is_over(self, place: Place) -> bool:
        first = replace(self._share(len(self.sampler.order(place.epoch)), place.position), rank=0)
        return not len(first)  # nobody has more left than the first rank

    def _share(self, length: int, start: int) -> Share:
        return Share(length, self.rank, self.world, self.uneven, start)


class _ShareOrder(Order):
    """One rank's share of an order."""

    def __init__(self, order: Order, share: Share) -> None:
        self._order, self._share = order, share

    def __len__(self) -> int:
        return len(self._share)

    def at(self, places: Indices) -> Indices:
        share = self._share
        dealt = share.start + share.rank + places * share.world
        return self._order.at(dealt % max(1, share.length))  # beyond the end: padded

    def passed(self, given: int) -> int:
        return self._share.passed(given)


class _InOrder(SeededSampler):
    """Yields 0, 1, ...: the order of a data source that is not shuffled."""

    def __init__(self, data_source: SizedOrLength) -> None:
        super().__init__()
        self.data_source = data_source
        length_of(data_source)

    def __len__(self) -> int:
        return length_of(self.data_source)

    def fingerprint(self) -> Fingerprint:
        return {"kind": "in order", "length": len(self)}

    def _order(self, epoch: int) -> Order:  # noqa: ARG002 - all are alike
        return _Rising(len(self))


class _Rising(Order):
    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def at(self, places: Indices) -> Indices:
        return places


def _seeded(sampler_or_source: SeededSampler | SizedOrLength) -> SeededSampler:
    if isinstance(sampler_or_source, SeededSampler) and not isinstance(sampler_or_source, ShardSampler):
        return sampler_or_source
    of_torch = ("torch.utils.data.sampler", "Sampler")
    kinds = type(sampler_or_source).__mro__
    if Sampler in kinds or any((kind.__module__, kind.__qualname__) == of_torch for kind in kinds):
        raise ConfigError(
            "ShardSampler deals out samplers with a seed and data sources, but got one of type "
            f"{type(sampler_or_source).__name__}, whose order is no function of a seed and an epoch, or is a share "
            "already; take ShuffleSampler, for example"
        )
    return _InOrder(sampler_or_source)
