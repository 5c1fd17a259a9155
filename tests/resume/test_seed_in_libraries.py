"""Two processes with a seed: every sample once over both, whether the ranks are the library's doing or ours."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

COMMON = """
    import json, os, sys, warnings
    warnings.simplefilter("ignore")
    import torch, torch.distributed as dist
    from forebay.torch import DataLoader

    COUNT = 26
    DATA = list(range(COUNT))

    def together(seen):
        found = [None] * dist.get_world_size()
        dist.all_gather_object(found, seen)
        return found
"""

PLAIN = """
    dist.init_process_group("gloo")
    loader = DataLoader(DATA, batch_size=4, shuffle=True, seed=7, num_workers=1, persistent_workers=True)
    epochs = []
    for epoch in range(2):
        seen = [index for batch in loader for index in batch.tolist()]
        ranks = together(seen)
        assert sorted(ranks[0] + ranks[1]) == DATA, ranks
        epochs.append(ranks)
    assert epochs[0] != epochs[1]
    half = iter(loader)
    delivered = together(next(half).tolist())
    state = loader.state_dict()
    assert together(state)[0] == together(state)[1], "one state for all ranks"
    again = DataLoader(DATA, batch_size=3, shuffle=True, seed=7)
    again.load_state_dict(state)
    rest = together([index for batch in again for index in batch.tolist()])
    assert sorted(sum(delivered + rest, [])) == DATA
    dist.destroy_process_group()
"""

LIGHTNING = """
    import lightning

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)
            self.seen = {}
        def training_step(self, batch, _):
            self.seen.setdefault(self.current_epoch, []).extend(batch.tolist())
            return self.layer(batch[:, None].float()).mean()
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    def fit(own, **options):
        model = Model()
        trainer = lightning.Trainer(
            max_epochs=2, accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_progress_bar=False,
            enable_model_summary=False, enable_checkpointing=False, use_distributed_sampler=not own,
        )
        trainer.fit(model, DataLoader(DATA, batch_size=4, shuffle=True, seed=7, **options))
        loader = trainer.train_dataloader
        assert type(loader) is DataLoader and loader.seed == 7 and hasattr(loader, "set_epoch")
        for epoch in model.seen.values():
            ranks = together(epoch)
            assert sorted(ranks[0] + ranks[1]) == DATA, (own, ranks)
        assert model.seen[0] != model.seen[1]

    fit(own=True)
    fit(own=False)
    fit(own=False, num_workers=1)
"""

ACCELERATE = """
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    for kind in ("theirs", "ours"):
        loader = DataLoader(DATA, batch_size=4, shuffle=True, seed=7)
        if kind == "theirs":
            loader = accelerator.prepare(loader)
        epochs = []
        for epoch in range(2):
            ranks = together([index for batch in loader for index in batch.tolist()])
            found = sorted(ranks[0] + ranks[1])
            # Accelerate fills its last batches up from the beginning.
            assert sorted(set(found)) == DATA and (kind == "theirs" or found == DATA), (kind, ranks)
            assert len(found) <= 32
            epochs.append(ranks)
        assert epochs[0] != epochs[1], kind
    accelerator.end_training()
"""

PROGRAMS = {"plain": (PLAIN, []), "lightning": (LIGHTNING, ["lightning"]), "accelerate": (ACCELERATE, ["accelerate"])}


@pytest.mark.parametrize("name", PROGRAMS)
def test_over_two_processes_every_sample_comes_once(name: str, tmp_path: Path) -> None:
    program, needs = PROGRAMS[name]
    for library in needs:
        pytest.importorskip(library, reason=f"{library} is not installed")
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(COMMON) + textwrap.dedent(program))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(script)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-6000:]
