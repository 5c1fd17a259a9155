"""Forebay's loader against torch's, in turn, in one run. Every figure in the documents comes from here.

    python bench/run.py                          all cases, about five minutes; writes bench/results/
    python bench/run.py --quick                  the main cases in under a minute: is it roughly right
    python bench/run.py --only uint8 float32     some cases
    python bench/run.py --profile uint8          where the time of a batch goes: faults, waits, system calls

Quick and partial runs write to .cache/bench/, so that bench/results/ always holds one whole run.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any, Self

import breakdown
import chart
import machine
import memcpy
import order
import report
import rust_crate
import seed
import state
from cases import BY_NAME, CASES, MEMCPY_BYTES, Case
from import_time import measure_ms

HERE = Path(__file__).resolve().parent
WHOLE, PARTIAL = HERE / "results", HERE.parent / ".cache" / "bench"
ROUNDS, QUICK_ROUNDS = 5, 2
MEMORY_ROUNDS = 3  # each starts new trainers, and they hardly differ
WINDOW_S, QUICK_WINDOW_S = 0.5, 0.2  # no window is shorter, however fast the loader
QUICK_DIVISOR = 5  # of batches in a window
IMPORTS, QUICK_IMPORTS = 15, 3


class Trainer:
    """The process that runs one case through one loader. It waits, and takes no time, until asked."""

    def __init__(self, case: Case, loader: str, environment: Mapping[str, str] | None = None) -> None:
        self.name = f"{case.name} through {loader}"
        command = [sys.executable, str(HERE / "trainer.py"), case.name, loader]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: the trainer ended with status {self.process.wait()}; see above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, command: str, count: int = 0, seconds: float = 0) -> dict[str, Any]:
        """Has a window of at least `count` batches or epochs, and of at least `seconds`, measured."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command} {count} {seconds}\n")
        self.process.stdin.flush()
        return self.answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Its standard input's end is its end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def trainers(case: Case, stack: ExitStack) -> dict[str, Trainer]:
    """One trainer for each loader, both ready."""
    started = {loader: stack.enter_context(Trainer(case, loader)) for loader in case.loaders}
    for trainer in started.values():
        trainer.answer()
    return started


def compare_batches(case: Case, pair: dict[str, Trainer]) -> None:
    digests = {loader: trainer.ask("check")["digest"] for loader, trainer in pair.items()}
    if len(set(digests.values())) != 1:
        raise SystemExit(f"{case.name}: the loaders' batches differ, so no figure means anything: {digests}")


def measure(case: Case, rounds: int, *, quick: bool) -> dict[str, dict[str, list[float]]]:
    """The figures of all rounds, by loader and metric. The loaders take turns."""
    figures: dict[str, dict[str, list[float]]] = {loader: {} for loader in case.loaders}
    window = (max(case.count // QUICK_DIVISOR, 5), QUICK_WINDOW_S) if quick else (case.count, WINDOW_S)
    for loader, found in answers(case, rounds, window):
        for metric, value in found.items():
            figures[loader].setdefault(metric, []).append(value)
    return figures


def answers(case: Case, rounds: int, window: tuple[int, float]) -> Iterator[tuple[str, dict[str, float]]]:
    """The loaders' figures in turn, from one pair of trainers; for memory, from one new trainer at a time."""
    if case.method == "memory":
        for _, loader in product(range(min(rounds, MEMORY_ROUNDS)), case.loaders):
            with Trainer(case, loader) as trainer:
                trainer.answer()
                yield loader, trainer.ask(case.method, *window)
        return
    with ExitStack() as stack:
        pair = trainers(case, stack)
        if case.method == "handoff":
            compare_batches(case, pair)
        for _, (loader, trainer) in product(range(rounds), pair.items()):
            yield loader, trainer.ask(case.method, *window)


def run(cases: Sequence[Case], rounds: int, *, quick: bool) -> dict[str, Any]:
    """Measures, and tells about each case as soon as it is known."""
    results: dict[str, Any] = {
        "machine": machine.describe(),
        "rounds": rounds,
        "quick": quick,
        "cases": {},
        "memcpy_ms": {},
    }
    if results["machine"]["load_before"] > machine.BUSY_LOAD:
        print(f"The machine is busy (load {results['machine']['load_before']}): expect noise.", file=sys.stderr)
    for case in cases:
        results["cases"][case.name] = measure(case, rounds, quick=quick)
        if case.name in MEMCPY_BYTES:
            results["memcpy_ms"][case.name] = [memcpy.median_ms(MEMCPY_BYTES[case.name]) for _ in range(rounds)]
        print(report.line(case, results), flush=True)
    return results


def save(results: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tables = report.markdown(results)
    (folder / "table.md").write_text(tables)
    (folder / "results.json").write_text(json.dumps({**results, "summary": report.summary(results)}, indent=1) + "\n")
    drawn = chart.draw(results, folder / "handoff.svg")
    print(f"\n{tables}")
    print(f"written: {os.path.relpath(folder)}/results.json, table.md{', handoff.svg' if drawn else ''}")


def profile(case: Case) -> None:
    with ExitStack() as stack:
        for loader, trainer in trainers(case, stack).items():
            breakdown.show(loader, trainer.ask("profile", case.count))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="the main cases, in fewer and shorter rounds")
    parser.add_argument("--only", nargs="+", metavar="CASE", choices=BY_NAME, help=", ".join(BY_NAME))
    parser.add_argument("--rounds", type=int, help=f"default {ROUNDS}, with --quick {QUICK_ROUNDS}")
    parser.add_argument("--profile", metavar="CASE", choices=BY_NAME, help="one case's faults, waits, system calls")
    parser.add_argument("--out", type=Path, help="folder for the results")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.profile:
        profile(BY_NAME[options.profile])
        return
    start = time.monotonic()
    whole = not options.only and not options.quick
    names = options.only or [case.name for case in CASES if whole or case.quick]
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    results = run([case for case in CASES if case.name in names], rounds, quick=options.quick)
    if not options.only:
        results["import_ms"] = measure_ms(QUICK_IMPORTS if options.quick else IMPORTS)
    if whole:
        results["rust"] = rust_crate.measure()
        results["seed"] = seed.measure()
        results["state"] = state.measure()
        results["order"] = order.measure()
    results["took_s"] = round(time.monotonic() - start)
    save(results, options.out or (WHOLE if whole else PARTIAL))


if __name__ == "__main__":
    main()
