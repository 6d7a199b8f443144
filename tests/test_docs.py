"""The generated pages are current, and no command or option is without help."""

import importlib.util
import re
from pathlib import Path

import pytest
from typer.main import get_command

from cli.main import app

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["cli.md", "data-contract.md"])
def test_generated_page_is_current(generate, name):
    assert (ROOT / "docs" / name).read_text() == generate.pages()[name], "run `make docs`"


def test_every_command_and_option_has_help(generate):
    for words in generate.commands():
        command = get_command(app)
        for word in words:
            command = command.commands[word]
        assert command.help or command.callback.__doc__, words
        for parameter in command.params:
            assert getattr(parameter, "help", None), (words, parameter.name)


def test_readme_names_every_top_level_command(generate):
    readme = (ROOT / "README.md").read_text()

    for words in generate.commands():
        if len(words) == 1:
            assert f"`{words[0]}" in readme or f"lesionary {words[0]}" in readme, words


def test_links_between_pages_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
