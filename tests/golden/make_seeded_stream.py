"""Freezes what samples draw with a seed: run it when that is changed on purpose, and say so in the changelog.

PYTHONPATH=python:tests:tests/seed python tests/golden/make_seeded_stream.py
"""

import json
from pathlib import Path

from seeded_streams import golden

import forebay

found = golden(forebay.DataLoader)
parts = (
    f"{json.dumps(name)}: [\n" + ",\n".join(json.dumps(each) for each in streams) + "\n]"
    for name, streams in found.items()
)
Path(__file__).with_name("seeded_stream.json").write_text("{\n" + ",\n".join(parts) + "\n}\n")
