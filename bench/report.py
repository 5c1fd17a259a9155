"""From the figures of all rounds to medians, ratios, tables."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import machine
import order
import seed
import state
from cases import CASES, TOTAL_CPU, TRAINER_CPU, WALL, WORKERS, Aim, Case, Metric

Results = dict[str, Any]

NOISE = 0.03


@dataclass(frozen=True)
class Spread:
    """The median of some rounds, and their range."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{short(self.median)} ({short(self.low)}-{short(self.high)})"


def short(value: float) -> str:
    """At least three digits, and no more than one would believe."""
    decimals = 3 if value < 0.1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{decimals}f}"


@dataclass(frozen=True)
class Comparison:
    """One metric of one case."""

    case: Case
    metric: Metric
    torch: Spread
    forebay: Spread
    times_better: Spread
    aim: Aim | None

    @property
    def verdict(self) -> str:
        if self.aim is None:
            return ""
        if self.aim.strive is not None and self.times_better.median >= self.aim.strive:
            return "as hoped"
        if self.times_better.median >= self.aim.at_least:
            return "met"
        # "Not more" cannot be told from "equal" closer than this; an aim that is larger has to be reached.
        equal = self.aim.at_least == 1 and (self.times_better.high >= 1 or self.times_better.median > 1 - NOISE)
        return "equal" if equal else "MISSED"


def compare(case: Case, metric: Metric, results: Results) -> Comparison:
    """The rounds' figures side by side. A ratio is taken within a round, for machines drift."""
    torch, forebay = (results["cases"][case.name][loader][metric.key] for loader in case.loaders)
    ratios = [theirs / ours for theirs, ours in zip(torch, forebay, strict=True)]
    return Comparison(case, metric, Spread.of(torch), Spread.of(forebay), Spread.of(ratios), case.aims.get(metric))


def measured(results: Results) -> list[Case]:
    """The cases that were run, in the usual order."""
    return [case for case in CASES if case.name in results["cases"]]


def comparisons(results: Results) -> list[Comparison]:
    """Every metric of every case that was run."""
    return [compare(case, metric, results) for case in measured(results) for metric in case.aims]


def summary(results: Results) -> dict[str, Any]:
    """The comparisons as plain data, for the results file."""
    found: dict[str, Any] = {}
    for each in comparisons(results):
        found.setdefault(each.case.name, {})[each.metric.key] = {
            "torch": vars(each.torch),
            "forebay": vars(each.forebay),
            "times_better": vars(each.times_better),
            "aim": each.aim._asdict() if each.aim else None,
            "verdict": each.verdict,
        }
    return found


def line(case: Case, results: Results) -> str:
    """What is told about a case when it has been measured."""
    parts: list[str] = []
    for metric in case.aims:
        each = compare(case, metric, results)
        values = f"{short(each.torch.median)} → {short(each.forebay.median)} {metric.unit}"
        parts.append(f"{metric.title} {values}, {each.times_better}x")
    return f"{case.name:<13}" + "; ".join(parts)


def markdown(results: Results) -> str:
    """All tables."""
    notes = (
        f"Medians of {results['rounds']} rounds, the loaders in turn; in parentheses the least and the most. "
        "A ratio is taken within each round. Total CPU is the trainer's and its workers'. The trainer reads one "
        "byte of every page; memcpy is one bare copy of the batch."
    )
    chapters = [
        *_chapter(f"A batch in the middle of an epoch, {WORKERS} workers", _handoff_table(results)),
        *_chapter("Everything else", _other_table(results)),
        *_chapter("Aims: how many times better than torch", _aims_table(results)),
        *_chapter("The crate `forebay`, without Python", _rust_table(results)),
        *_chapter("`seed=`, a sample that draws from all three generators", _seed_table(results)),
        *_chapter(f"A loader's state, {state.SAMPLES:,} samples, no workers", _state_table(results)),
        *_chapter("Orders of an epoch", _order_table(results)),
    ]
    lines = [notes, *chapters]
    if imports := results.get("import_ms"):
        lines += [f"`import forebay` costs {Spread.of(imports)} ms beyond NumPy."]
    return "\n\n".join([*lines, machine.in_words(results["machine"])]) + "\n"


def _chapter(title: str, table: str) -> list[str]:
    return [f"**{title}**", table] if table else []


def _handoff_table(results: Results) -> str:
    rows: list[list[str]] = []
    for case in measured(results):
        if case.method == "handoff" and case.workers:
            wall, trainer, total = (compare(case, metric, results) for metric in (WALL, TRAINER_CPU, TOTAL_CPU))
            copies = results["memcpy_ms"].get(case.name)
            rows.append(
                [
                    case.title,
                    f"{wall.torch}",
                    f"{wall.forebay}",
                    f"{wall.times_better}",
                    f"{trainer.times_better}",
                    f"{total.times_better}",
                    short(statistics.median(copies)) if copies else "",
                ]
            )
    head = ["batch", "torch, ms", "forebay, ms", "times faster"]
    return _table([*head, "trainer CPU, times less", "total CPU, times less", "memcpy, ms"], rows)


def _other_table(results: Results) -> str:
    rows: list[list[str]] = []
    for each in comparisons(results):
        if each.case.method == "handoff" and each.case.workers:
            continue
        title = each.case.title if each.case.workers else f"{each.case.title}, 0 workers"
        subject = f"{title}: {each.metric.title}, {each.metric.unit}"
        rows.append([subject, f"{each.torch}", f"{each.forebay}", f"{each.times_better}"])
    return _table(["figure", "torch", "forebay", "times less"], rows)


def _aims_table(results: Results) -> str:
    rows: list[list[str]] = []
    for each in comparisons(results):
        if each.aim:
            strive = f"{each.aim.strive:g}" if each.aim.strive else ""
            figures = [f"{each.aim.at_least:g}", strive, f"{each.times_better}", each.verdict]
            rows.append([each.case.name, each.metric.title, *figures])
    return _table(["case", "figure", "at least", "hoped for", "measured", ""], rows)


RUST_TITLES = {
    "rayon": ("an epoch of photographs, 2 worker threads", "a hand-written rayon loop of 2 threads"),
    "threads": ("a batch of 64 integers from a worker thread", "a round trip of crossbeam channels"),
    "processes": ("a batch of 64 integers from a worker process", "a round trip over a pair of Unix sockets"),
}


def _rust_table(results: Results) -> str:
    rows: list[list[str]] = []
    for each in results.get("rust", ()):
        ours, theirs = RUST_TITLES[each["measure"]]
        times = [f"{each[key] * 1e6:,.1f}" for key in ("ours_s", "theirs_s")]
        verdict = "met" if each["ratio"] <= each["most"] else "MISSED"
        rows.append([f"{ours}, against {theirs}", *times, short(each["ratio"]), f"{each['most']:g}", verdict])
    return _table(["figure", "ours, us", "theirs, us", "ratio", "at most", ""], rows)


def _seed_table(results: Results) -> str:
    found = results.get("seed")
    if found is None:
        return ""
    rows = [[name, f"{spent:.2f}"] for name, spent in found["parts_us"].items()]
    rows += [["a loader's sample, without a seed", f"{found['without_us']:.2f}"]]
    rows += [["a loader's sample, with a seed", f"{found['with_us']:.2f}"]]
    cost = Spread.of(found["cost_us"])
    rows += [
        [f"what seed= costs, aim {seed.MOST_US} us: {'met' if cost.median < seed.MOST_US else 'MISSED'}", str(cost)]
    ]
    return _table(["CPU time of", "us"], rows)


def _state_table(results: Results) -> str:
    rows: list[list[str]] = []
    for each in results.get("state", ()):
        times = [short(each["first_us"]), short(each["us"]), f"{each['bytes']:,}", short(each["start_ms"])]
        beyond = [f"{each['beyond_ms'][str(position)]:.1f}" for position in state.POSITIONS]
        rows.append([each["sampler"], *times, *beyond, state.verdict(each)])
    head = ["sampler", "first state of an epoch, us", "others, us", "bytes of JSON", "start, ms"]
    return _table([*head, *(f"resume at {position:g}, ms beyond" for position in state.POSITIONS), ""], rows)


def _order_table(results: Results) -> str:
    found = results.get("order")
    rows = [[name, figure, aim, "met" if met else "MISSED"] for name, figure, aim, met in order.verdicts(found or {})]
    return _table(["order", "figure", "aim", ""], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    # The first column is text, the others are figures.
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(_row(cells, widths) for cells in (head, rule, *rows))


def _row(cells: Iterable[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return " | ".join(["| " + first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]) + " |"
