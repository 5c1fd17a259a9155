"""The examples of docs/samplers.md are true, and its table has every sampler with a seed."""

import doctest
import re
from pathlib import Path

import pytest

from forebay import sampler
from forebay.sampler import SeededSampler

PAGE = Path(__file__).parents[2] / "docs" / "samplers.md"
TEXT = PAGE.read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_examples_of_the_page_are_true() -> None:
    assert len(EXAMPLES) == TEXT.count("```python")
    examples = doctest.DocTestParser().get_doctest("\n".join(EXAMPLES), {}, PAGE.name, str(PAGE), 0)
    result = doctest.DocTestRunner().run(examples)
    assert result.attempted > len(EXAMPLES)
    assert result.failed == 0


@pytest.mark.parametrize("name", sampler.__all__)
def test_the_page_says_when_to_use_every_sampler(name: str) -> None:
    kind = getattr(sampler, name)
    if issubclass(kind, SeededSampler) and kind is not SeededSampler:
        assert f"| `{name}(" in TEXT
    elif name not in ("Sampler", "SeededSampler", "BatchSampler"):
        assert f"`{name}`" in TEXT
