"""The chart of `results.json`: how many times faster than torch.

By hand: python bench/chart.py bench/results/results.json bench/results/handoff.svg
"""

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from cases import WALL
from report import Comparison, Results, compare, measured

WIDTH_INCHES = 9.375  # 900 pixels at the 96 to an inch that browsers use
INK, QUIET, RULE = "#1b1f24", "#6a737d", "#e4e7eb"
BAR, TARGET, HOPE = "#2a7fb8", "#d1481f", "#e8a33d"


def draw(results: Results, path: Path) -> bool:
    """Writes the chart; False if none of its cases was measured."""
    cases = [case for case in measured(results) if case.workers and case.main == WALL]
    if not cases:
        return False
    rows = [compare(case, WALL, results) for case in cases]
    # The same figures must give the same file: no date, no random names of elements.
    settings = {
        "svg.hashsalt": "forebay",
        "font.family": ["DejaVu Sans"],
        "font.size": 9.5,
        "text.color": INK,
    }
    with plt.rc_context(settings):
        figure, axes = plt.subplots(figsize=(WIDTH_INCHES, 1.45 + 0.4 * len(rows)))
        right = 1.13 * max(max(row.times_better.high, row.aim.at_least if row.aim else 0) for row in rows)
        _frame(axes, rows, right)
        for place, row in enumerate(rows):
            _bar(axes, place, row, right)
        _titles(figure, results)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
    return True


def _frame(axes: Axes, rows: list[Comparison], right: float) -> None:
    axes.set_xlim(0, right)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [row.case.title for row in rows])
    axes.set_xticks([1, *range(5, int(right) + 1, 5)])
    axes.set_xticklabels([f"{tick:g}x" for tick in axes.get_xticks()], color=QUIET)
    axes.tick_params(length=0, pad=6)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.axvline(1, color=QUIET, linewidth=1)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.figure.subplots_adjust(
        left=0.34, right=0.985, top=1 - 0.72 / _height(axes), bottom=0.62 / _height(axes)
    )


def _height(axes: Axes) -> float:
    return float(axes.figure.get_size_inches()[1])


def _bar(axes: Axes, place: int, row: Comparison, right: float) -> None:
    ratio = row.times_better
    axes.barh(place, ratio.median, height=0.56, color=BAR)
    axes.hlines(place, ratio.low, ratio.high, color=INK, linewidth=1.1)
    if row.aim:
        axes.vlines(row.aim.at_least, place - 0.36, place + 0.36, color=TARGET, linewidth=2.2)
        if row.aim.strive and row.aim.strive < right:
            axes.vlines(row.aim.strive, place - 0.36, place + 0.36, color=HOPE, linewidth=2.2)
    times = f"{row.torch.median:.3g} → {row.forebay.median:.2g} ms"
    fits = ratio.median > 0.27 * right
    axes.text(
        right * 0.006 if fits else max(ratio.high, row.aim.strive or 0 if row.aim else 0) + right * 0.075,
        place,
        f" {times}",
        color="white" if fits else QUIET,
        va="center",
        fontsize=8.5,
    )
    axes.text(ratio.high + right * 0.008, place, f"{ratio.median:.1f}x", va="center", fontweight="bold")


def _titles(figure: plt.Figure, results: Results) -> None:
    height = figure.get_size_inches()[1]
    figure.text(
        0.012, 1 - 0.28 / height, "Times faster than torch's DataLoader", fontsize=13, fontweight="bold"
    )
    figure.text(0.012, 1 - 0.5 / height, f"2 workers, median of {results['rounds']} rounds", color=QUIET)
    marks = [
        Line2D([], [], color=INK, linewidth=1.1, label="range of the rounds"),
        Line2D([], [], color=TARGET, linewidth=2.2, label="aim"),
        Line2D([], [], color=HOPE, linewidth=2.2, label="hope"),
    ]
    figure.legend(
        handles=marks, loc="upper right", bbox_to_anchor=(0.99, 1 - 0.06 / height), ncols=3, frameon=False
    )
    about = results["machine"]
    words = f"{about['cpu']}, {about['cores']} cores; torch {about['torch']}; {str(about['date'])[:10]}"
    figure.text(0.985, 0.12 / height, words, color=QUIET, fontsize=8, ha="right")


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
