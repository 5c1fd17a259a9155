"""Lightning and Accelerate find a loader's state, save it with a checkpoint, and go on from it."""

import importlib
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from samplers import seeded, through_json

import forebay.torch
from forebay.torch import DataLoader
from support import values

LIGHTNING = """
    import json, sys, warnings
    warnings.simplefilter("ignore")
    import lightning, torch
    from lightning.pytorch.callbacks import ModelCheckpoint
    from forebay.torch import DataLoader

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)
            self.seen = []
        def training_step(self, batch, _):
            self.seen.append(batch.flatten().tolist())
            return self.layer(batch).mean()
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    def train(workers, folder, ckpt=None):
        data = torch.arange(24.0)[:, None]
        generator = torch.Generator().manual_seed(workers)
        loader = DataLoader(data, batch_size=4, shuffle=True, num_workers=workers, generator=generator)
        save = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=8, save_top_k=-1)
        model = Model()
        trainer = lightning.Trainer(
            max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=folder, enable_checkpointing=ckpt is None, callbacks=[] if ckpt else [save],
        )
        trainer.fit(model, loader, ckpt_path=ckpt)
        return model.seen

    folder = sys.argv[1]
    for workers in (0, 2):
        whole = train(workers, f"{folder}/{workers}")
        again = train(workers, folder, f"{folder}/{workers}/step=8.ckpt")
        assert len(whole) == 18 and again == whole[8:], (whole, again)
"""

ACCELERATE = """
    import sys, warnings
    warnings.simplefilter("ignore")
    import accelerate.data_loader, torch, torchdata.stateful_dataloader
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration
    import forebay.torch

    # As an installation would: Accelerate looks these names up whenever it makes a loader.
    accelerate.data_loader.DataLoader = forebay.torch.DataLoader
    torchdata.stateful_dataloader.StatefulDataLoader = forebay.torch.DataLoader

    def train(workers, seedable, save=None, load=None):
        config = DataLoaderConfiguration(use_stateful_dataloader=True, use_seedable_sampler=seedable)
        accelerator = Accelerator(cpu=True, dataloader_config=config)
        torch.manual_seed(3)
        data = torch.arange(24)
        stock = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True, num_workers=workers)
        loader = accelerator.prepare(stock)
        assert type(loader.base_dataloader) is forebay.torch.DataLoader
        if load:
            accelerator.load_state(load)
        seen = []
        for batch in loader:
            seen.append(batch.tolist())
            if save and len(seen) == 2:
                accelerator.save_state(save)
        return seen

    folder = sys.argv[1]
    for workers in (0, 2):
        for seedable in (False, True):
            place = f"{folder}/{workers}{seedable}"
            whole = train(workers, seedable, save=place)
            assert len(whole) == 6
            assert train(workers, seedable, load=place) == whole[2:]
"""


@pytest.mark.parametrize(("program", "needs"), [(LIGHTNING, ["lightning"]), (ACCELERATE, ["accelerate", "torchdata"])])
def test_a_checkpoint_in_the_middle_of_an_epoch_goes_on_there(program: str, needs: list[str], tmp_path: Path) -> None:
    for name in needs:
        pytest.importorskip(name, reason=f"{name} is not installed")
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(program))
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_what_accelerate_subtracts_is_honoured() -> None:
    """With several processes it is some batches ahead of what it has given, and takes that off these three."""
    loader = DataLoader(range(24), batch_size=4, shuffle=True, generator=seeded())  # type: ignore[arg-type]
    whole = values(loader)
    loader = DataLoader(range(24), batch_size=4, shuffle=True, generator=seeded())  # type: ignore[arg-type]
    epoch = iter(loader)
    for _ in range(3):
        next(epoch)
    state = through_json(loader.state_dict())
    state["_sampler_iter_yielded"] -= 1
    state["_num_yielded"] -= 1
    state["_index_sampler_state"]["samples_yielded"] -= 4
    again = DataLoader(range(24), batch_size=4, shuffle=True, generator=seeded())  # type: ignore[arg-type]
    again.load_state_dict(state)
    assert values(again) == whole[2:]


def test_an_epoch_that_accelerate_declares_over_is_over() -> None:
    loader = DataLoader(range(24), batch_size=4)  # type: ignore[arg-type]
    next(iter(loader))
    again = DataLoader(range(24), batch_size=4)  # type: ignore[arg-type]
    again.load_state_dict(loader.state_dict() | {"_iterator_finished": True})
    assert len(values(again)) == 6


def test_changing_a_state_does_not_change_the_loader() -> None:
    loader = DataLoader(range(24), batch_size=4, shuffle=True, generator=seeded())  # type: ignore[arg-type]
    next(iter(loader))
    before, state = through_json(loader.state_dict()), loader.state_dict()
    state["_num_yielded"] = 0
    state["forebay"]["order"]["generators"].clear()
    assert through_json(loader.state_dict()) == before


WHERE = [("begin", 0), ("middle", 2), ("last", 6), ("end", 7)]


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
@pytest.mark.parametrize("batches", [number for _, number in WHERE], ids=[name for name, _ in WHERE])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resume_yields_what_torchdatas_loader_yields(workers: int, batches: int) -> None:
    pytest.importorskip("torchdata", reason="torchdata is not installed")
    theirs: Any = importlib.import_module("torchdata.stateful_dataloader").StatefulDataLoader

    def rest(kind: Any) -> list[Any]:
        loader = kind(list(range(24)), batch_size=4, num_workers=workers)
        epoch = iter(loader)
        for _ in range(batches):
            next(epoch, None)
        again = kind(list(range(24)), batch_size=4, num_workers=workers)
        again.load_state_dict(loader.state_dict())
        return [values(again), values(again)]

    assert rest(forebay.torch.DataLoader) == rest(theirs)
