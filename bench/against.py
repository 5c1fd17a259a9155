"""Forebay as it is against Forebay as it was, in turn, in one run: has a change made it slower?

    python bench/against.py v0.1.0                        the hand-off with workers, against a tag or any commit
    python bench/against.py HEAD~3 --only scalars tokens --rounds 15

The earlier one is checked out and built under .cache/against/; nothing of the working tree changes.
"""

import argparse
import os
import shutil
import statistics
import subprocess
from contextlib import ExitStack
from pathlib import Path

from cases import BY_NAME, CASES, Case
from run import WINDOW_S, Trainer

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "against"
ROUNDS = 9
HANDED_OVER = [case.name for case in CASES if case.method == "handoff" and case.workers]


def built(reference: str) -> Path:
    """The Python path of Forebay at `reference`, checked out and built."""
    commit = subprocess.check_output(["git", "rev-parse", "--short", f"{reference}^{{commit}}"], cwd=ROOT, text=True)
    tree = CACHE / commit.strip()
    engine = tree / "python" / "forebay" / "_engine.abi3.so"
    if not engine.exists():
        shutil.rmtree(tree, ignore_errors=True)
        subprocess.run(["git", "clone", "--quiet", "--shared", str(ROOT), str(tree)], check=True)
        subprocess.run(["git", "checkout", "--quiet", commit.strip()], cwd=tree, check=True)
        target = CACHE / "target"
        build = ["cargo", "build", "--release", "--quiet", "-p", "forebay-py", "--target-dir", str(target)]
        subprocess.run(build, cwd=tree, check=True)
        shutil.copy(next((target / "release").glob("lib*engine*.so")), engine)
    return tree / "python"


def compare(case: Case, before: Path, after: Path, rounds: int) -> list[tuple[float, float]]:
    """Milliseconds of a batch, before and after, of each round."""
    with ExitStack() as stack:
        pair = [
            stack.enter_context(Trainer(case, "forebay", {**os.environ, "PYTHONPATH": str(path)}))
            for path in (before, after)
        ]
        for trainer in pair:
            trainer.answer()
        if len({trainer.ask("check")["digest"] for trainer in pair}) != 1:
            raise SystemExit(f"{case.name}: batches differ from those of before")
        asked = [[trainer.ask(case.method, case.count, WINDOW_S)["wall_ms"] for trainer in pair] for _ in range(rounds)]
    return [(was, now) for was, now in asked]


def line(case: Case, figures: list[tuple[float, float]]) -> str:
    was, now = (statistics.median(column) for column in zip(*figures, strict=True))
    ratios = sorted(now / was for was, now in figures)
    middle = statistics.median(ratios)
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    return f"{case.name:14} {was:8.4f} ms before {now:8.4f} ms now    x{middle:.3f} ({spread})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("reference", help="the commit to compare with")
    parser.add_argument("--only", nargs="+", metavar="CASE", choices=HANDED_OVER, default=HANDED_OVER)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    before, after = built(options.reference), ROOT / "python"
    for name in options.only:
        print(line(BY_NAME[name], compare(BY_NAME[name], before, after, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
