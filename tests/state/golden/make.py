"""Writes states to keep: run it when the format gets another version, and keep the files of the versions before.

PYTHONPATH=tests:tests/state python tests/state/golden/make.py
"""

import json
from itertools import islice
from pathlib import Path

import torch
from samplers import ALL, DATA

from forebay.torch import DataLoader
from forebay.torch._state import VERSION
from support import values

HERE = Path(__file__).parent

for name, options in ALL.items():
    torch.manual_seed(7)
    own = options()
    if "batch_sampler" not in own:
        own.setdefault("batch_size", 4)
    loader = DataLoader(DATA, **own)
    epoch = iter(loader)
    list(islice(epoch, 2))
    kept = {"name": name, "state": loader.state_dict(), "rest": values(epoch)}
    file = HERE / f"v{VERSION}-{name.replace(',', '').replace(' ', '-')}.json"
    file.write_text(json.dumps(kept) + "\n")
