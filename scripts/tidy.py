"""The project's laws that no compiler keeps, and reminders about size.

Laws fail `make check`; reminders are only printed. Standard library only: it runs before anything is built.
By hand: python scripts/tidy.py
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent

# Integration tests may: forking and dying on purpose is unsafe. Their blocks are proved like all others.
UNSAFE_ROOMS = ("crates/forebay-shm/src/*", "crates/forebay-py/src/*", "crates/*/tests/*")
ATOMICS_ROOM = "crates/forebay-shm/src/sync.rs"
PYTHON_CRATE = "forebay-py"
TORCH_ROOM = "python/forebay/torch/"
TORCH_PACKAGES = {"torch", "torchvision", "torchdata"}
PROOF_DISTANCE = 3  # lines between an unsafe word and the end of the comment that proves it
LONG_FUNCTION = 70
LONG_FILE = 500

TEXT_SUFFIXES = {".rs", ".py", ".pyi", ".sh", ".md", ".toml", ".yml", ".yaml", ".txt", ""}
# Spelled in pieces, or this file would break its own law.
POSTPONED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME)\b|\b(?:to" + r"do|unimple" + r"mented)!\s*[(\[{]")

RUST_NOISE = re.compile(
    r"""
      //[^\n]*
    | /\*.*?\*/
    | \b(?:br|cr|r)(?P<hashes>\#*)".*?"(?P=hashes)
    | \b[bc]?"(?:[^"\\]|\\.)*"
    | "(?:[^"\\]|\\.)*"
    | b?'(?:[^'\\\n]|\\[^u\n]|\\u\{[^}]*\}|\\x[0-9a-fA-F]{2})'
    """,
    re.VERBOSE | re.DOTALL,
)
RUST_TEST_MODULE = re.compile(r"#\[cfg\([^\]]*\btest\b[^\]]*\)\]\s*(?:pub\s+)?mod\s+\w+\s*\{")
RUST_FUNCTION = re.compile(r"\bfn\s+(\w+)")
RUST_UNSAFE = re.compile(r"\bunsafe\b")
# Blocks, implementations and blocks of foreign functions; an unsafe function's duties are its callers'.
RUST_UNSAFE_TO_PROVE = re.compile(r"\bunsafe\s*(?:\{|impl\b|extern\s*\{)")
RUST_ATOMICS = re.compile(r"\bsync\s*::\s*(?:atomic\b|\{[^;]*?\batomic\b)")


class Finding(NamedTuple):
    """One broken law or one reminder, at one place."""

    path: PurePosixPath
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


class Function(NamedTuple):
    """Where a function starts and how many lines it has."""

    name: str
    line: int
    length: int


class RustFile:
    """A Rust source: its text, and the same text with comments and literals blanked out."""

    def __init__(self, path: PurePosixPath, text: str) -> None:
        self.path = path
        self.lines = text.splitlines()
        self.code = RUST_NOISE.sub(lambda noise: re.sub(r"[^\n]", " ", noise.group()), text)
        self.test_spans = [
            (found.start(), self._closing_brace(found.end() - 1)) for found in RUST_TEST_MODULE.finditer(self.code)
        ]

    def line_of(self, position: int) -> int:
        return self.code.count("\n", 0, position) + 1

    def in_tests(self, position: int) -> bool:
        return is_test(self.path) or any(start <= position < end for start, end in self.test_spans)

    def functions(self) -> Iterator[Function]:
        """Every function that has a body."""
        for found in RUST_FUNCTION.finditer(self.code):
            opening = re.compile(r"[{;]").search(self.code, found.end())
            # An array type in the signature, as in `[u8; 4]`, is not its end.
            while opening and opening.group() == ";" and self._inside_brackets(found.end(), opening.start()):
                opening = re.compile(r"[{;]").search(self.code, opening.end())
            if opening and opening.group() == "{":
                first, last = self.line_of(found.start()), self.line_of(self._closing_brace(opening.start()))
                yield Function(found.group(1), first, last - first + 1)

    def _inside_brackets(self, start: int, end: int) -> bool:
        part = self.code[start:end]
        return part.count("[") > part.count("]")

    def _closing_brace(self, opening: int) -> int:
        depth = 0
        for brace in re.compile(r"[{}]").finditer(self.code, opening):
            depth += 1 if brace.group() == "{" else -1
            if depth == 0:
                return brace.start()
        return len(self.code)


def is_test(path: PurePosixPath) -> bool:
    """Whether a file is a test or a benchmark by its place."""
    return bool({"tests", "benches", "fuzz"} & set(path.parts))


def unsafe_stays_in_its_rooms(file: RustFile) -> Iterator[Finding]:
    if any(fnmatch(str(file.path), room) for room in UNSAFE_ROOMS):
        return
    for found in RUST_UNSAFE.finditer(file.code):
        yield Finding(file.path, file.line_of(found.start()), f"unsafe outside {', '.join(UNSAFE_ROOMS)}")


def unsafe_is_proved(file: RustFile) -> Iterator[Finding]:
    for found in RUST_UNSAFE_TO_PROVE.finditer(file.code):
        line = file.line_of(found.start())
        above = range(line - 1, line - 2 - PROOF_DISTANCE, -1)  # indices: `line` counts from one
        if not any(_comment_block_has_proof(file.lines, last) for last in above):
            yield Finding(file.path, line, f"no SAFETY comment within {PROOF_DISTANCE} lines above")


def _comment_block_has_proof(lines: list[str], last: int) -> bool:
    """Whether the run of comment lines that ends at index `last` says SAFETY. A long proof is one run."""
    while 0 <= last < len(lines) and "//" in lines[last]:
        if "SAFETY:" in lines[last]:
            return True
        if not lines[last].lstrip().startswith("//"):
            return False
        last -= 1
    return False


def atomics_stay_behind_their_door(file: RustFile) -> Iterator[Finding]:
    if str(file.path) == ATOMICS_ROOM:
        return
    for found in RUST_ATOMICS.finditer(file.code):
        before = file.code[: found.start()].rstrip(": \n")
        if before.endswith("loom") or file.in_tests(found.start()):
            continue
        line = file.line_of(found.start())
        yield Finding(file.path, line, f"atomics are named in {ATOMICS_ROOM} only: take them from there")


def python_stays_in_its_crate(path: PurePosixPath, text: str) -> Iterator[Finding]:
    if path.name != "Cargo.toml" or len(path.parts) < 2 or PYTHON_CRATE in path.parts:
        return
    for table in _dependency_tables(tomllib.loads(text)):
        for name, value in table.items():
            package = value.get("package", name) if isinstance(value, dict) else name
            if package.startswith("pyo3"):
                yield Finding(path, 1, f"depends on {package}: only {PYTHON_CRATE} knows Python")


def _dependency_tables(manifest: dict) -> Iterator[dict]:
    for key, value in manifest.items():
        if key in {"dependencies", "dev-dependencies", "build-dependencies"}:
            yield value
        elif key == "target":
            for target in value.values():
                yield from _dependency_tables(target)


def torch_stays_in_its_front(path: PurePosixPath, tree: ast.Module) -> Iterator[Finding]:
    if not str(path).startswith("python/forebay/") or str(path).startswith(TORCH_ROOM):
        return
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                imported = [alias.name for alias in names]
            case ast.ImportFrom(module=module, names=names, level=level):
                # A relative import is spelled out: from python/forebay/x.py, `.torch` is `forebay.torch`.
                package = path.parts[1:-1][: len(path.parts) - 1 - level] if level else ()
                imported = [".".join((*package, *filter(None, [module]), alias.name)) for alias in names]
            case _:
                continue
        for name in imported:
            if name.split(".")[0] in TORCH_PACKAGES or f"{name}.".startswith("forebay.torch."):
                yield Finding(path, node.lineno, f"imports {name}: only {TORCH_ROOM} imports torch")


def nothing_is_postponed(path: PurePosixPath, text: str) -> Iterator[Finding]:
    for number, line in enumerate(text.splitlines(), start=1):
        if POSTPONED.search(line):
            yield Finding(path, number, "postponed work: do it, or open an issue")


def python_functions(tree: ast.Module) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            yield Function(node.name, node.lineno, node.end_lineno - node.lineno + 1)


def long_parts(path: PurePosixPath, text: str, functions: Iterator[Function]) -> Iterator[Finding]:
    if is_test(path):
        return
    if (length := len(text.splitlines())) > LONG_FILE:
        yield Finding(path, 1, f"{length} lines; would two rooms be easier to live in?")
    for function in functions:
        if function.length > LONG_FUNCTION:
            yield Finding(path, function.line, f"`{function.name}` has {function.length} lines")


def sources() -> Iterator[tuple[PurePosixPath, str]]:
    """Every text file that git tracks or would track, with its content."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in sorted(filter(None, listing.stdout.split("\0"))):
        path = PurePosixPath(name)
        if path.suffix in TEXT_SUFFIXES and (ROOT / path).is_file():
            yield path, (ROOT / path).read_text(encoding="utf-8")


def examine(path: PurePosixPath, text: str) -> tuple[list[Finding], list[Finding]]:
    """The broken laws and the reminders of one file."""
    broken = [*nothing_is_postponed(path, text), *python_stays_in_its_crate(path, text)]
    reminders: list[Finding] = []
    if path.suffix == ".rs":
        file = RustFile(path, text)
        broken += unsafe_stays_in_its_rooms(file)
        broken += unsafe_is_proved(file)
        broken += atomics_stay_behind_their_door(file)
        reminders += long_parts(path, text, file.functions())
    elif path.suffix == ".py":
        tree = ast.parse(text, filename=str(path))
        broken += torch_stays_in_its_front(path, tree)
        reminders += long_parts(path, text, python_functions(tree))
    return broken, reminders


def main() -> int:
    broken: list[Finding] = []
    reminders: list[Finding] = []
    count = 0
    for path, text in sources():
        of_laws, of_size = examine(path, text)
        broken += of_laws
        reminders += of_size
        count += 1
    for finding in reminders:
        print(f"reminder: {finding}")
    for finding in broken:
        print(f"broken: {finding}")
    print(f"tidy: {count} files, {len(broken)} laws broken, {len(reminders)} reminders")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
