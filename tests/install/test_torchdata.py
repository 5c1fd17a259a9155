"""torchdata's `StatefulDataLoader`, served by Forebay: its own batches, with states that are exact."""

import gc
import importlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import forebay
import forebay.torch
from forebay import _fallback, _ledger
from forebay.errors import FallbackWarning, StateError
from forebay.torch._inline import InlineIterator
from forebay.torch._iterator import WorkersIterator
from programs import forebay_run, python, write
from support import eventually, is_running, pids_of, values

pytest.importorskip("torchdata", reason="torchdata is not installed: run `make setup`")

StatefulDataLoader: Any = importlib.import_module("torchdata.stateful_dataloader").StatefulDataLoader

pytestmark = [
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),
    pytest.mark.timeout(300),  # Accelerate is imported a dozen times
]


class Derived(StatefulDataLoader):  # type: ignore[misc]
    pass


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_ledger, "_ledger", _ledger._Ledger())
    monkeypatch.setattr(_fallback, "_said", set())
    forebay.install()
    yield
    forebay.uninstall()


def shuffled(workers: int, seed: int = 1, **options: Any) -> Any:
    torch.manual_seed(seed)
    return StatefulDataLoader(list(range(22)), batch_size=4, shuffle=True, num_workers=workers, **options)


PROGRAM = """
    import hashlib, random, sys
    {imports}
    import numpy as np

    class Points(torch.utils.data.Dataset):
        def __len__(self):
            return 23
        def __getitem__(self, index):
            return torch.tensor([index + torch.rand(()).item(), np.random.rand(), random.random()])

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            for number in range(9):
                yield torch.tensor([number, torch.rand(()).item()])

    class Derived(StatefulDataLoader):
        pass

    def run(kind, data, workers, asks, generator, **options):
        for seed in (torch.manual_seed, np.random.seed, random.seed):
            seed(1)
        generator = torch.Generator().manual_seed(5) if generator else None
        loader = kind(data, batch_size=4, num_workers=workers, generator=generator, **options)
        assert isinstance(loader, StatefulDataLoader) and isinstance(loader, torch.utils.data.DataLoader)
        digest = hashlib.sha256()
        if asks:
            loader.state_dict()
        for epoch in range(2):
            torch.rand(3)
            for batch in loader:
                digest.update(batch.numpy().tobytes())
                torch.rand(1)
                if asks:
                    loader.state_dict()
        print(digest.hexdigest(), torch.rand(1).item())

    for workers in (0, 2):
        for asks in (False, True):
            for generator in (False, True):
                run(StatefulDataLoader, Points(), workers, asks, generator, shuffle=True)
            run(Derived, Points(), workers, asks, False, shuffle=True, persistent_workers=workers > 0)
            run(StatefulDataLoader, Stream(), workers, asks, False, snapshot_every_n_steps=3)
"""
IMPORTS = {
    "torch first": "import torch; from torch.utils.data import DataLoader; "
    "from torchdata.stateful_dataloader import StatefulDataLoader",
    "torchdata first": "from torchdata.stateful_dataloader import StatefulDataLoader; import torch",
}


@pytest.mark.parametrize("imports", IMPORTS.values(), ids=IMPORTS)
def test_a_program_has_torchdatas_batches_bit_for_bit_and_they_are_forebays(imports: str, tmp_path: Path) -> None:
    program = write(tmp_path, PROGRAM.replace("{imports}", imports))
    stock, ours = python(tmp_path, program), forebay_run(tmp_path, program)
    assert (stock.code, ours.code) == (0, 0), stock.stderr + ours.stderr
    assert len(stock.stdout.splitlines()) == 16
    assert ours.stdout == stock.stdout
    assert "8 loaders came from Forebay's workers" in ours.log[-1]
    assert "8 loaders were made in this process" in ours.log[-1]


@pytest.mark.parametrize(("workers", "kind"), [(0, InlineIterator), (1, WorkersIterator)])
def test_classes_and_loaders_from_before_are_served_until_uninstall(workers: int, kind: type, installed: None) -> None:
    forebay.uninstall()
    loaders = [made(range(3), num_workers=workers) for made in (StatefulDataLoader, Derived)]
    forebay.install()
    forebay.install()
    for loader in loaders:
        assert type(iter(loader)) is kind
        assert values(loader) == [[0], [1], [2]]
        assert isinstance(loader, forebay.torch.DataLoader)
    begun = iter(loaders[0])
    next(begun)
    forebay.uninstall()
    assert values(begun) == [[1], [2]]
    assert loaders[0].state_dict()["_num_yielded"] == 3
    for loader in loaders:
        assert type(iter(loader)).__module__ == StatefulDataLoader.__module__
        assert values(loader) == [[0], [1], [2]]


@pytest.mark.parametrize("after", [0, 2, 5, 6])
@pytest.mark.parametrize(("workers", "later"), [(0, 2), (2, 2), (2, 0)])
def test_a_state_goes_on_at_any_batch_with_any_number_of_workers(
    workers: int, later: int, after: int, installed: None
) -> None:
    whole = shuffled(workers, snapshot_every_n_steps=4)
    epoch = iter(whole)
    for _ in range(after):
        next(epoch)
    state = whole.state_dict()
    again = shuffled(later, seed=9)
    again.load_state_dict(state)
    assert again.state_dict()["_num_yielded"] == after
    assert values(again) == values(epoch)


def test_after_a_finished_epoch_the_next_one_comes(installed: None) -> None:
    whole = shuffled(2)
    values(whole)
    again = shuffled(2, seed=9)
    again.load_state_dict(whole.state_dict())
    assert values(again) == values(whole)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_state_of_torchdatas_own_iterator_is_finished_by_that(workers: int, installed: None) -> None:
    forebay.uninstall()
    whole = shuffled(workers)
    epoch = iter(whole)
    next(epoch)
    state, rest = whole.state_dict(), values(epoch)
    forebay.install()
    again = shuffled(workers, seed=9)
    again.load_state_dict(state)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", FallbackWarning)
        assert values(again) == rest
    assert ["a state that torchdata's own iterator took" in str(each.message) for each in said] == [True] * workers
    assert isinstance(iter(again), (InlineIterator, WorkersIterator))


def test_a_state_of_forebays_is_refused_where_torchdatas_own_iterator_serves(
    installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = shuffled(0).state_dict()
    again = shuffled(0)
    again.load_state_dict(state)
    monkeypatch.setenv("FOREBAY", "off")
    with pytest.raises(StateError, match="torch's own iterator serves this loader"):
        iter(again)


def test_a_loader_that_is_let_go_of_ends_its_workers(installed: None) -> None:
    loader = shuffled(1)
    pids = pids_of(iter(loader))
    gc.disable()
    try:
        del loader
        eventually(lambda: not any(map(is_running, pids)))
    finally:
        gc.enable()


# -- Accelerate

ACCELERATE = """
    import json, sys
    import torch
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration
    from torch.utils.data import DataLoader

    def main(action, workers, seedable, epochs):
        config = DataLoaderConfiguration(use_stateful_dataloader=True, use_seedable_sampler=seedable == "seedable")
        accelerator = Accelerator(cpu=True, dataloader_config=config)
        torch.manual_seed(3)
        data = torch.arange(48)
        loader = accelerator.prepare(DataLoader(data, batch_size=4, shuffle=True, num_workers=int(workers)))
        if action == "load":
            accelerator.load_state("saved")
        for epoch in range(int(epochs) if action == "save" else 1):
            seen = []
            for batch in loader:
                seen.append(batch.tolist())
                if action == "save" and epoch == int(epochs) - 1 and len(seen) == 2:
                    accelerator.save_state("saved")
        with open(f"{action}{accelerator.process_index}", "w") as file:
            json.dump(seen, file)
        accelerator.end_training()

    if __name__ == "__main__":
        main(*sys.argv[1:])
"""
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("workers", "seedable", "epochs"),
    [(0, "plain", 1), (0, "seedable", 1), (2, "plain", 1), (0, "seedable", 2), (2, "seedable", 3)],
)
def test_accelerate_goes_on_in_a_new_process_in_the_middle_of_an_epoch(
    processes: int, workers: int, seedable: str, epochs: int, tmp_path: Path
) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed: run `make setup`")
    words = [*(TORCHRUN if processes > 1 else ()), write(tmp_path, ACCELERATE)]
    for action in ("save", "load"):
        ended = forebay_run(tmp_path, *words, action, workers, seedable, epochs)
        assert ended.code == 0, ended.stderr
        assert "torch's own iterators served" not in ended.stderr
    for rank in range(processes):
        whole, rest = (json.loads((tmp_path / f"{action}{rank}").read_text()) for action in ("save", "load"))
        assert len(whole) == 12 // processes
        assert rest == whole[2:]


def test_a_state_of_accelerates_that_another_sampler_drew_is_refused(tmp_path: Path) -> None:
    """With workers, its first epoch begins before it puts its seedable sampler in: it cannot be drawn again."""
    pytest.importorskip("accelerate", reason="accelerate is not installed: run `make setup`")
    program = write(tmp_path, ACCELERATE)
    assert forebay_run(tmp_path, program, "save", 2, "seedable", 1).code == 0
    ended = forebay_run(tmp_path, program, "load", 2, "seedable", 1)
    assert ended.code != 0
    assert "StateError: this state does not fit this loader: samplers is" in ended.stderr
