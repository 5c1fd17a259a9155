"""The crate's own benchmark (`crates/forebay/benches/overhead.rs`), which needs no Python, for the same tables."""

import json
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
COMMAND = ("cargo", "bench", "--quiet", "-p", "forebay", "--bench", "overhead")


def measure() -> list[dict[str, Any]]:
    """One comparison each: `measure`, `ours_s`, `theirs_s`, `ratio`, the `most` it should be, and `rounds`."""
    done = subprocess.run(COMMAND, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


if __name__ == "__main__":
    for comparison in measure():
        print(comparison)
