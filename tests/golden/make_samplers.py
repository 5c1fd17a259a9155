"""Freezes the orders of the samplers with a seed: run it when they are changed on purpose, and say so in the changelog.

PYTHONPATH=python:tests:tests/sampling python tests/golden/make_samplers.py
"""

import json
from pathlib import Path

from seeded_catalogue import golden

lines = [f"{json.dumps(name)}: {json.dumps(orders)}" for name, orders in golden().items()]
Path(__file__).with_name("samplers.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
