"""The contract as a list of laws: the tests of this directory, with the reasons where Forebay differs on purpose."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "pytorch-contract.md"

SECTIONS = [
    "test_constructor",
    "test_attributes",
    "test_iteration",
    "test_len",
    "test_seeding",
    "test_worker_info",
    "test_worker_environment",
    "test_exceptions",
    "test_worker_death",
    "test_timeout_pinning_persistence_shutdown",
    "test_collate_convert",
    "test_private_names",
    "test_library_uses",
    "test_liveness",
]

INTRO = """\
# PyTorch's contract

What programs rely on in PyTorch's `DataLoader`, law by law. Each line is a test in tests/contract that is run twice,
on PyTorch's own loader and on `forebay.torch.DataLoader`, and must pass on both. Where Forebay differs on purpose, the
line says what each of the two does, and why; the test proves both. `make contract` writes this page from the tests.
"""


def differs(reason: str, *, torch: str, ours: str) -> Any:
    """Marks a law that Forebay keeps in another way than PyTorch. Only such a test may ask for the fixture `stock`.

    Args:
        reason: why.
        torch: what PyTorch's loader does.
        ours: what Forebay's does.
    """
    return pytest.mark.differs(reason, torch=torch, ours=ours)


@dataclass(frozen=True)
class Law:
    """One test, as a sentence."""

    sentence: str
    torch: str
    ours: str
    reason: str


@dataclass(frozen=True)
class Section:
    title: str
    about: str
    laws: list[Law]


def sections() -> list[Section]:
    """The tests as they are written, in the order of the contract."""
    found = {path.stem for path in HERE.glob("test_*.py")}
    assert found == {*SECTIONS, "test_page"}, found.symmetric_difference([*SECTIONS, "test_page"])
    return [_section(ast.parse((HERE / f"{name}.py").read_text())) for name in SECTIONS]


def _section(module: ast.Module) -> Section:
    title, _, about = (ast.get_docstring(module) or "").partition("\n\n")
    laws = [_law(node) for node in module.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    return Section(title.rstrip("."), " ".join(about.split()), laws)


def _law(test: ast.FunctionDef) -> Law:
    for decorator in test.decorator_list:
        if isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name) and decorator.func.id == "differs":
            said = {word.arg: ast.literal_eval(word.value) for word in decorator.keywords}
            return Law(_sentence(test.name), said["torch"], said["ours"], ast.literal_eval(decorator.args[0]))
    return Law(_sentence(test.name), "yes", "yes", "")


_TERMS = (
    *("num_workers", "batch_size", "batch_sampler", "collate_fn", "pin_memory", "drop_last", "worker_init_fn"),
    *("multiprocessing_context", "prefetch_factor", "persistent_workers", "in_order", "set_epoch", "memory_budget"),
    *("default_collate", "default_convert", "get_worker_info", "torch_initial_seed", "base_seed", "generate_state"),
    *("sys_exit", "pin_memory_device", "del_iterator"),
)
_SPELLED = {
    **{name: f"`{name}`" for name in _TERMS},
    "torch_initial_seed": "`torch.initial_seed()`",
    "generate_state": "`_generate_state`",
    "sys_exit": "`sys.exit`",
    "del_iterator": "`del loader._iterator`",
    "dunder_getitems": "`__getitems__`",
    "dunder_dict": "`__dict__`",
    "dunder_iter": "`__iter__`",
}
_SPELLING = re.compile(rf"(?<![a-z0-9])({'|'.join(sorted(_SPELLED, key=len, reverse=True))})(?![a-z0-9])")
_NAMES = {"torchs": "torch's", "pytorchs": "PyTorch's", "keyerror": "`KeyError`", "stopiteration": "`StopIteration`"}


def _sentence(name: str) -> str:
    """A test's name as a sentence; names of the interface as they are written."""
    text = _SPELLING.sub(lambda found: _SPELLED[found.group()].replace("_", "\0"), name.removeprefix("test_"))
    words = " ".join(_NAMES.get(word, word) for word in text.split("_")).replace("\0", "_")
    return words[0].upper() + words[1:]


# -- The page


def render() -> str:
    """The page docs/pytorch-contract.md."""
    found = sections()
    laws = [law for section in found for law in section.laws]
    differing = [law for law in laws if law.reason]
    parts = [INTRO, f"{len(laws)} laws; {len(differing)} of them are kept in another way, on purpose."]
    for section in found:
        parts += ["", f"## {section.title}", "", *([section.about, ""] if section.about else [])]
        parts += ["| law | PyTorch | forebay.torch | why it differs |", "|:--|:--|:--|:--|", *_lines(section.laws)]
    return "\n".join(parts) + "\n"


def _lines(laws: list[Law]) -> Iterator[str]:
    for law in laws:
        cells = (cell.replace("|", "\\|") for cell in (law.sentence, law.torch, law.ours, law.reason))
        yield f"| {' | '.join(cells)} |"
