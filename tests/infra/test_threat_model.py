"""The threat model leans on modules and tests that exist, and every section says what remains."""

import ast
import re
from functools import cache

import pytest
from infra_files import ROOT

PAGE = (ROOT / "docs" / "threat-model.md").read_text()
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
PLACES = sorted(set(re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|yaml|md))`", PAGE)))


@cache
def functions(path):
    return {node.name for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.FunctionDef)}


def test_the_page_names_tests_and_modules():
    assert len(TESTS) > 50
    assert len(PLACES) > 25
    assert PAGE.count("::test_") == len(re.findall(r"`tests/[\w/]+\.py::\w+`", PAGE))


@pytest.mark.parametrize("path", sorted({path for path, _ in TESTS}))
def test_every_test_it_names_exists(path):
    assert {name for at, name in TESTS if at == path} <= functions(path)


def test_every_module_it_names_exists():
    # The bill of materials is made, not kept.
    assert [place for place in PLACES if not (ROOT / place).is_file() and not place.startswith("build/")] == []


def test_every_kind_of_attack_says_what_remains():
    sections = {part.split("\n")[0]: part for part in PAGE.split("\n## ")[1:]}

    attacks = {name: part for name, part in sections.items() if "| attack |" in part or name == "Supply chain"}

    assert len(attacks) == 10
    for name, part in attacks.items():
        assert "**Remains.**" in part, name
