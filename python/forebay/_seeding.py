"""What a loader with a seed adds to an ordinary one: its epochs' numbers, the order that it makes, its rank's share."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, get_args

from forebay._fallback import engine_is_missing
from forebay._ranks import resolve_rank
from forebay._seeded import SeededSampler
from forebay._seeds import checked_epoch, checked_seed, integer
from forebay._sharded import ShardSampler
from forebay._share import Uneven
from forebay._stateful import is_stateful
from forebay.dataset import is_stream
from forebay.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SAMPLER_MODULES", "Seeding", "announce", "checked_seeding", "cuts_evenly", "draws_at_once", "epoch_of"]
__all__ += ["index_sampler_of", "members", "not_without_engine", "shares_rows"]

_DEEPEST = 8
"""Samplers around samplers; whoever has more is not looked into further."""


def members(sampler: Any) -> list[Any]:
    """A sampler, the one it takes its indices from, and so on."""
    found = [sampler]
    while len(found) < _DEEPEST:
        inner = getattr(found[-1], "batch_sampler", None)
        inner = getattr(found[-1], "sampler", None) if inner is None else inner
        if inner is None or any(inner is each for each in found):
            break
        found.append(inner)
    return found


@dataclass(slots=True)
class Seeding:
    """The seed of a loader, and the number of its next epoch.

    Attributes:
        seed: of the loader.
        rank: as given to the loader.
        world: as given to the loader.
        uneven: what is done where samples do not divide evenly.
        makes_order: whether the order is the loader's own, which it deals to the ranks by itself. What a sampler of
            somebody else's gives is dealt only on request: it may be one rank's share already.
        prefetch_factor: as given to the loader.
        next_epoch: the number of the next epoch, unless a sampler was told another one.
    """

    seed: int
    rank: int | None
    world: int | None
    uneven: Uneven
    makes_order: bool
    prefetch_factor: int | None = None
    next_epoch: int = 0
    _said: list[int | None] = field(default_factory=list[int | None], repr=False)
    """The epochs of the loader's samplers when it last knew of them."""
    _entered: int | None = field(default=None, repr=False)
    """While an epoch is being begun, its number."""

    def ranks(self) -> tuple[int, int]:
        """Which rank this is, and of how many: asked anew with every epoch."""
        if not self.makes_order and self.rank is None and self.world is None:
            return 0, 1
        return resolve_rank(self.rank, self.world)

    @contextmanager
    def beginning(self) -> Generator[None]:
        """Held while an epoch is being begun: if that fails, the next one to begin is the same."""
        try:
            yield
        except BaseException:
            if self._entered is not None:
                self.next_epoch = self._entered
            raise
        finally:
            self._entered = None

    def begin(self, loader: Any) -> int:
        """The number of the epoch that begins now. Its samplers and the dataset learn it.

        A sampler that has been told a number since, by a library that knows nothing of this loader, decides.
        """
        told = zip_longest(_epochs_of(loader), self._said)
        epoch = next((now for now, said in told if now is not None and now != said), self.next_epoch)
        self.enter(loader, epoch)
        return epoch

    def enter(self, loader: Any, epoch: int) -> None:
        """Begins this epoch."""
        self._entered = epoch
        self.announce(loader, epoch)
        self.next_epoch = epoch + 1
        index_sampler = index_sampler_of(loader)
        sampler = index_sampler.sampler if cuts_evenly(index_sampler) else index_sampler
        if isinstance(sampler, SeededSampler):  # its order is taken by number: this is the pass that moves it on
            sampler.epoch = self.next_epoch
            self._said = _epochs_of(loader)

    def announce(self, loader: Any, epoch: int) -> None:
        """Says to everything that has `set_epoch` that the next epoch is this one. What it draws is a function of both.

        Raises:
            ConfigError: when it is no number from 0 up to but not including 2**64.
        """
        from forebay._sample_seeds import SamplerStreams  # needs the engine, which not every system has

        self.next_epoch = checked_epoch(epoch)
        with SamplerStreams(self.seed, self.next_epoch).lent():
            announce(loader, epoch)
        self._said = _epochs_of(loader)


def announce(loader: Any, epoch: int) -> None:
    """Tells a loader's samplers and its dataset, those that have `set_epoch`, which epoch is next."""
    for thing in (*members(index_sampler_of(loader)), loader.dataset):
        set_epoch: Callable[[int], object] | None = getattr(thing, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)


def shares_rows(loader: Any, *, gathers: bool) -> bool:
    """Whether several workers may make the samples of one batch: with a seed nobody can tell who made one.

    Not where a dataset makes a batch's samples at once, or counts what was asked of it.

    Args:
        loader: of either front.
        gathers: whether its batches are gathered in one call.
    """
    dataset = loader.dataset
    alone = gathers or is_stream(dataset) or is_stateful(dataset) or hasattr(dataset, "__getitems__")
    seeded = loader._seeding is not None and loader.in_order  # else a slow batch keeps nobody waiting
    return bool(seeded and loader.num_workers > 1 and loader.batch_sampler is not None and not alone)


def index_sampler_of(loader: Any) -> Any:
    """What gives a loader's indices: its batch sampler, or without automatic batching its sampler."""
    return loader.sampler if loader.batch_sampler is None else loader.batch_sampler


SAMPLER_MODULES = frozenset({"forebay.sampler", "torch.utils.data.sampler"})


def draws_at_once(sampler: Any) -> bool:
    """Whether a sampler is torch's or ours, which draw nothing from the global generators after their first index."""
    modules = SAMPLER_MODULES | {"torch.utils.data.distributed"}
    return all(type(each).__module__ in modules for each in members(sampler))


def cuts_evenly(batch_sampler: Any) -> bool:
    """Whether a batch sampler is an ordinary one, ours or torch's, which only cuts what its sampler gives."""
    return type(batch_sampler).__name__ == "BatchSampler" and type(batch_sampler).__module__ in SAMPLER_MODULES


def _epochs_of(loader: Any) -> list[int | None]:
    return [epoch_of(sampler) for sampler in members(index_sampler_of(loader))]


def epoch_of(sampler: Any) -> int | None:
    """The epoch that a sampler was told, or is at."""
    epoch = integer(getattr(sampler, "epoch", None))
    return None if epoch is None or epoch < 0 else epoch


def checked_seeding(
    *,
    seed: Any,
    rank: Any,
    world: Any,
    uneven: Any,
    generator: Any,
    sampler: Any,
    batch_sampler: Any,
    stream: bool,
    prefetch_factor: int | None,
) -> Seeding | None:
    """What the arguments of a loader say about its seed; None if it has none.

    Raises:
        ConfigError: for an argument that cannot be, and for arguments that exclude each other.
    """
    if uneven not in get_args(Uneven):
        raise ConfigError(f"uneven option should be 'keep', 'pad' or 'drop', but got uneven={uneven!r}")
    if seed is None:
        for name, value in {"rank": rank, "world": world, "uneven": uneven}.items():
            if value not in (None, "keep"):
                raise ConfigError(
                    f"{name}={value!r} needs a seed: without one every rank would draw an order of its own; pass the "
                    "same seed=... on all ranks, or a DistributedSampler"
                )
        return None
    seed = checked_seed(seed)
    if engine_is_missing():
        raise not_without_engine(seed, "this operating system")
    if generator is not None:
        raise ConfigError(
            f"seed={seed} and a generator exclude each other: with a seed, order and randomness come from it alone"
        )
    _check_ranks(rank, world, sampler, batch_sampler, stream=stream)
    makes_order = sampler is None and batch_sampler is None and not stream
    return Seeding(seed, rank, world, uneven, makes_order, prefetch_factor)


def not_without_engine(seed: int, what: str) -> ConfigError:
    """The error where nobody keeps what a seed promises: every rank would silently have all samples, say."""
    return ConfigError(
        f"seed={seed} needs Forebay's engine, which does not serve {what}: leave seed, rank and world out"
    )


def _check_ranks(rank: Any, world: Any, sampler: Any, batch_sampler: Any, *, stream: bool) -> None:
    if rank is None and world is None:
        return
    if stream:
        raise ConfigError(
            f"rank={rank!r}, world={world!r}: a stream has no indices to deal to ranks; let the dataset's __iter__ "
            "give each rank its part"
        )
    if batch_sampler is not None:
        raise ConfigError(
            f"rank={rank!r}, world={world!r}: whole batches are not dealt to ranks; let the batch_sampler do it, or "
            "pass a sampler and a batch_size"
        )
    resolve_rank(rank, world)
    if any(hasattr(each, "num_replicas") or isinstance(each, ShardSampler) for each in members(sampler)):
        raise ConfigError(
            f"rank={rank!r}, world={world!r}: {type(sampler).__name__} deals its indices to ranks already, and each "
            "rank would get a share of its share; leave out rank and world, or pass another sampler"
        )
