"""The page docs/pytorch-contract.md is what the tests say, and only declared differences are made."""

import ast

import pytest
from laws import HERE, PAGE, SECTIONS, differs, render, sections


def test_the_page_is_what_the_tests_say() -> None:
    assert PAGE.read_text() == render(), "docs/pytorch-contract.md is stale: make contract"


@pytest.mark.parametrize("name", SECTIONS)
def test_what_differs_is_declared_and_what_is_declared_differs(name: str) -> None:
    for node in ast.parse((HERE / f"{name}.py").read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            declared = any(differs.__name__ in ast.unparse(decorator) for decorator in node.decorator_list)
            asked = any(isinstance(part, ast.Name) and part.id == "stock" for part in ast.walk(node))
            assert declared == asked, node.name


def test_no_law_is_said_twice() -> None:
    sentences = [law.sentence for section in sections() for law in section.laws]
    assert len(set(sentences)) == len(sentences)
