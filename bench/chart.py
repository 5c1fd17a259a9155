"""The chart of `results.json`: how many times faster than torch.

By hand: python bench/chart.py bench/results/results.json bench/results/handoff.svg
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cases import WALL
from report import Comparison, Results, compare, measured, short

WIDTH_INCHES = 9.375  # 900 pixels at the 96 to an inch that browsers use
INK, QUIET, RULE = "#1b1f24", "#6a737d", "#e4e7eb"
BAR, TARGET, HOPE = "#5aa0d0", "#c2410c", "#eaa638"
HEAD_INCHES, FOOT_INCHES = 0.8, 0.6
GAP = 0.5
SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "forebay",  # the same figures give the same file
    "font.family": ["DejaVu Sans"],  # matplotlib brings it along
    "font.size": 9.5,
    "text.color": INK,
}


def draw(results: Results, path: Path) -> bool:
    """Writes the chart; False if none of its cases was measured."""
    cases = [case for case in measured(results) if case.workers and case.main == WALL]
    if not cases:
        return False
    rows = [compare(case, WALL, results) for case in cases]
    # A gap sets what is measured over epochs apart from single batches.
    places = [place + (GAP if row.case.method != "handoff" else 0) for place, row in enumerate(rows)]
    with plt.rc_context(SETTINGS):
        figure, axes = plt.subplots(figsize=(WIDTH_INCHES, HEAD_INCHES + FOOT_INCHES + 0.38 * len(rows)))
        _frame(axes, rows, places)
        for place, row in zip(places, rows, strict=True):
            _bar(axes, place, row)
        axes.text(1.14, -0.62, "torch → forebay", transform=axes.get_yaxis_transform(), color=QUIET, size=8.5)
        _words(figure, results)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
    return True


def _frame(axes: Axes, rows: list[Comparison], places: list[float]) -> None:
    right = 1.03 * max(max(row.times_better.high, *_marks(row)) for row in rows)
    axes.set_xlim(0, right)
    axes.set_ylim(places[-1] + 0.6, -0.6)
    axes.set_yticks(places, [row.case.title for row in rows])
    step = 5 if right < 40 else 10
    ticks = [1, *range(step, int(right) + 1, step)]
    axes.set_xticks(ticks, [f"{tick}x" for tick in ticks], color=QUIET)
    axes.tick_params(length=0, pad=6)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.axvline(1, color=QUIET, linewidth=1)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _marks(row: Comparison) -> list[float]:
    return [mark for mark in row.aim or () if mark is not None] or [0.0]


def _bar(axes: Axes, place: float, row: Comparison) -> None:
    ratio = row.times_better
    axes.barh(place, ratio.median, height=0.56, color=BAR)
    axes.hlines(place, ratio.low, ratio.high, color=INK, linewidth=1.1)
    for mark, color in zip(_marks(row) if row.aim else (), (TARGET, HOPE), strict=False):
        axes.vlines(mark, place - 0.38, place + 0.38, color=color, linewidth=2.2)
    beside = axes.get_yaxis_transform()  # across: parts of the axes' width
    axes.text(1.10, place, f"{ratio.median:.1f}x", transform=beside, va="center", ha="right", fontweight="bold")
    times = f"{short(row.torch.median)} → {short(row.forebay.median)} ms"
    axes.text(1.14, place, times, transform=beside, va="center", color=QUIET)


def _words(figure: Figure, results: Results) -> None:
    height = figure.get_size_inches()[1]
    figure.subplots_adjust(left=0.325, right=0.755, top=1 - HEAD_INCHES / height, bottom=FOOT_INCHES / height)
    figure.text(0.012, 1 - 0.28 / height, "Times faster than torch's DataLoader", size=13, weight="bold")
    figure.text(0.012, 1 - 0.5 / height, f"2 workers, median of {results['rounds']} rounds", color=QUIET)
    handles = [
        Line2D([], [], color=INK, linewidth=1.1, label="range of the rounds"),
        Line2D([], [], color=TARGET, linewidth=2.2, label="target"),
        Line2D([], [], color=HOPE, linewidth=2.2, label="hoped for"),
    ]
    figure.legend(handles=handles, loc="upper right", bbox_to_anchor=(0.995, 1 - 0.06 / height), ncols=3, frameon=False)
    about = results["machine"]
    words = f"{about['cpu']}, {about['cores']} cores; torch {about['torch']}; {str(about['date'])[:10]}"
    figure.text(0.988, 0.12 / height, words, color=QUIET, size=8, ha="right")


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
