"""From the catalogue to the page docs/inputs.md."""

import argparse
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import rows_arguments
import rows_batches
import rows_data
import rows_failures
import rows_use
import torch
from observing import (
    AS_IN_PYTORCH,
    CLEARER,
    NO_HANG,
    NUMPY_FRONT,
    OWN_WORDS,
    PYTORCH,
    TORCH_FRONT,
    WORKS,
    Input,
    Section,
    Seen,
    Verdict,
    judge,
)
from running import run

SECTIONS: list[Section] = [
    *rows_data.SECTIONS,
    *rows_batches.SECTIONS,
    *rows_arguments.SECTIONS,
    *rows_failures.SECTIONS,
    *rows_use.SECTIONS,
]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "inputs.md"
MOST_LETTERS = 150

INTRO = f"""\
# Inputs

Whatever you give to a loader either works as in PyTorch or is an error that you can understand. This page is the
proof: `make test` gives each input to PyTorch's loader and to both of Forebay's, and `make inputs` writes what they do.

- A cell shows the batches (or their number and kind), errors in their places, and warnings. *same*: the same batches,
  bit for bit, with the same types, strides and sharing of memory (for NumPy: with arrays in place of tensors), the same
  errors and warnings. *as forebay.torch*: the same text as in the column before. *hangs*: it would wait for ever.
- *{CLEARER}*: in the place of PyTorch's and of its type, with all of its words and more. *{OWN_WORDS}*: in NumPy only.
  *{NO_HANG}*, *{WORKS}*: as they say. *differs* gives the reason.
- Every exception of a worker carries a note of worker, batch and sample index, which is not repeated here. Where
  nothing else is said, there is one worker, started by fork.
"""


def key(section: Section, row: Input) -> str:
    return f"{section.title}: {row.title}"


def catalogue(only: str = "") -> dict[str, Input]:
    rows = [(key(section, row), row) for section in SECTIONS for row in section.inputs]
    assert len(dict(rows)) == len(rows), [
        name for name, count in Counter(name for name, _ in rows).items() if count > 1
    ]
    return {name: row for name, row in rows if only in name}


def verdicts(row: Input, found: dict[str, Any]) -> dict[str, Verdict]:
    """The verdict on each front; none where this machine cannot show what happens."""
    if "unobservable" in found:
        return {}
    seen = {name: Seen(**told) for name, told in found["seen"].items()}
    difference = found["difference"]
    theirs = seen[PYTORCH]
    result = {
        TORCH_FRONT: judge(theirs, seen[TORCH_FRONT], difference.get(TORCH_FRONT), row.reason, own_words=False),
    }
    if row.numpy:
        words = row.numpy_reason
        result[NUMPY_FRONT] = judge(theirs, seen[NUMPY_FRONT], difference.get(NUMPY_FRONT), words, own_words=True)
    return result


# -- The page


def versions() -> str:
    """What the words of errors depend on."""
    python = ".".join(map(str, sys.version_info[:2]))
    return f"Python {python}, torch {torch.__version__.split('+')[0]}, NumPy {np.__version__.split('.')[0]}"


def versions_of(page: str) -> str:
    found = re.search(r"\(shown by (.*?)\)", page)
    return found.group(1) if found else ""


def render(found: dict[str, dict[str, Any]], committed: str) -> str:
    """The page. Rows that this machine cannot show stay as they are `committed`."""
    parts = [INTRO]
    tally: Counter[str] = Counter()
    old = lines_of(committed)
    for section in SECTIONS:
        parts += ["", f"## {section.title}", "", *([section.about, ""] if section.about else [])]
        parts += ["| input | PyTorch | forebay.torch | forebay (NumPy) | verdict |", "|:--|:--|:--|:--|:--|"]
        for row in section.inputs:
            name = key(section, row)
            line = old.get(name) if "unobservable" in found[name] else _line(row, found[name])
            if line is not None:
                parts.append(line)
                tally[line.rsplit(" | ", 1)[-1].removesuffix(" |").split(";")[0].split(":")[0]] += 1
    counts = ", ".join(f"{count} {kind}" for kind, count in tally.most_common())
    parts[1:1] = [f"Of {tally.total()} inputs, in the torch front: {counts} (shown by {versions()})."]
    return "\n".join(parts) + "\n"


def lines_of(page: str) -> dict[str, str]:
    """The rows of a page, by name."""
    lines: dict[str, str] = {}
    section = ""
    for line in page.splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif line.startswith("| ") and not line.startswith("| input "):
            lines[f"{section}: {line.split(' | ')[0].removeprefix('| ')}"] = line
    return lines


def _line(row: Input, found: dict[str, Any]) -> str:
    judged = verdicts(row, found)
    cells = [row.title, _cell(found["seen"][PYTORCH]["text"], row.whole)]
    for name in (TORCH_FRONT, NUMPY_FRONT):
        if name not in judged:
            cells.append("")
        elif judged[name].text == AS_IN_PYTORCH:
            cells.append("same")
        else:
            text = found["seen"][name]["text"]
            hidden = text == found["seen"][PYTORCH]["text"] and found["difference"].get(name)
            cell = _cell(f"{text} ({hidden})" if hidden else text, row.whole)
            cells.append("as forebay.torch" if cell == cells[-1] and name == NUMPY_FRONT else cell)
    ours = judged[TORCH_FRONT].text
    numpy = judged[NUMPY_FRONT].text if row.numpy else ours
    cells.append(ours if numpy == ours else f"{ours}; NumPy: {numpy}")
    return "| " + " | ".join(cells) + " |"


def _cell(text: str, whole: bool) -> str:
    """A text, or at most `MOST_LETTERS` of it, the middle left out: what is said first and last says most."""
    if len(text) > MOST_LETTERS and not whole:
        half = MOST_LETTERS // 2
        text = f"{text[:half].rstrip()} … {text[-half:].lstrip()}"
        if text.count("`") % 2:
            text = text.replace("`", "")
    return text.replace("|", "\\|").replace("<", "&lt;") if "`" not in text else text.replace("|", "\\|")


# -- By hand


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs the catalogue of inputs, and writes docs/inputs.md.")
    parser.add_argument("--only", default="", metavar="WORD", help="run the inputs with WORD in their names, and print")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write what was seen there, and no page")
    arguments = parser.parse_args()
    rows = catalogue(arguments.only)
    found = run(rows)
    if arguments.only:
        for name, row in rows.items():
            _print(name, row, found[name])
    elif arguments.json:
        arguments.json.write_text(json.dumps(found))
    else:
        PAGE.write_text(render(found, PAGE.read_text() if PAGE.exists() else ""))
        print(f"{PAGE} has {len(rows)} inputs")
    slowest = sorted(rows, key=lambda name: -found[name]["seconds"])[:12]
    print("slowest:", *(f"{found[name]['seconds']:.1f} s {name}" for name in slowest), sep="\n  ")
    complaints = [text for name, row in rows.items() for text in complaints_of(name, row, found[name])]
    print(*complaints, sep="\n")
    return 1 if complaints else 0


def complaints_of(name: str, row: Input, found: dict[str, Any]) -> list[str]:
    """What is wrong with a row: a difference that nobody explains, and an explanation without a difference."""
    found_wrong = []
    for front, verdict in verdicts(row, found).items():
        if verdict.unexplained:
            shown = {face: told["text"] for face, told in found["seen"].items() if face in (PYTORCH, front)}
            found_wrong.append(f"{name}: {front} {verdict.text}, for no written reason: {shown}")
        if verdict.stale:
            found_wrong.append(f"{name}: {front} does what PyTorch does; its row still gives a reason")
    return found_wrong


def _print(name: str, row: Input, found: dict[str, Any]) -> None:
    print(name)
    for face, told in found["seen"].items():
        print(f"    {face}: {told['text']}")
    for front, verdict in verdicts(row, found).items():
        print(f"    -> {front}: {verdict.text} {found['difference'].get(front, '')}")
    if found["printed"]:
        print(f"    printed: {found['printed']}")
    if "unobservable" in found:
        print(f"    cannot be seen here: {found['unobservable']}")
