"""Making batches where they are used, without workers. Shared by both fronts."""

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from forebay._advice import Scene
from forebay._fetch import StreamFetcher, fetcher_of, skip
from forebay._stateful import Held, restore, restore_iterator, unpack

if TYPE_CHECKING:
    from forebay._state import Epoch

__all__ = ["InlineBench"]


class InlineBench:
    """Where one epoch's batches are made.

    Args:
        loader: of either front.
        epoch: which one. What it has of the dataset is restored.
        stream: whether the dataset is read by iteration.
        auto_collation: whether samples come in batches.

    Attributes:
        fetcher: what gets the samples.
    """

    def __init__(self, loader: Any, epoch: "Epoch", *, stream: bool, auto_collation: bool) -> None:
        self._collate_fn = loader.collate_fn
        self._auto_collation = auto_collation
        self._scene = Scene("this process", loader.dataset, auto_collation, stream)
        self._seeds = None
        if epoch.seed is not None:
            from forebay._sample_seeds import SampleSeeds  # needs the engine, which not every system has

            self._seeds = SampleSeeds(epoch.seed, epoch.epoch)
        self._held: Held = {}
        standing = epoch.cursor.standings.get(0)
        if standing is not None and standing.state is not None:
            self._held = unpack(standing.state)
            restore(loader.dataset, self._held)
        with self._lent():
            self.fetcher = fetcher_of(
                loader.dataset,
                stream=stream,
                auto_collation=auto_collation,
                drop_last=loader.drop_last,
                seeds=self._seeds,
            )
        self._unread = standing.batches if stream and standing is not None else 0
        epoch.watch(self.fetcher)

    def make(self, indices: Any) -> Any:
        """One batch."""
        if self._unread:
            self._go_on(indices)
        self._scene.begin(indices)
        with self._lent(), self._scene as scene:
            try:
                samples = self.fetcher.fetch(indices)
            finally:
                scene.index = self.fetcher.current
            scene.samples = (samples,)
            self.fetcher.seed_collate(indices)
            return self._collate_fn(samples)

    def _lent(self) -> Any:
        """With a seed the global generators are set for every sample, of which the program notices nothing."""
        if self._seeds is None:
            return nullcontext()
        from forebay._sample_seeds import lent_streams

        return lent_streams()

    def _go_on(self, places: Any) -> None:
        """Brings a new stream to where it stood."""
        fetcher, batches, self._unread = self.fetcher, self._unread, 0
        if not isinstance(fetcher, StreamFetcher):
            return
        with self._lent():
            if not self._held:
                skip(fetcher, batches, places)
                return
            restore_iterator(fetcher.samples, self._held)
            fetcher.ended = bool(self._held.get("ended"))
            if self._seeds is not None:
                fetcher.seed(self._seeds, 0, 1, self._held.get("place", 0))
