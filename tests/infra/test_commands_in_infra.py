"""Every `lesionary` command that a manifest, a script or the runbook carries is one that the program has."""

import pytest
from infra_files import INFRA, ROOT, commands
from typer.exceptions import TyperException
from typer.main import get_command

from cli.main import app

PAGES = [path for path in sorted(INFRA.rglob("*")) if path.suffix in {".yaml", ".md"} or path.name == "Dockerfile"]


def parse(words):
    """The context that the program's own parser makes of a command, without running it."""
    command, rest = get_command(app), words[1:]
    while hasattr(command, "commands"):
        command, rest = command.commands[rest[0]], rest[1:]
    return command.make_context(command.name, list(rest))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(INFRA).as_posix())
def test_commands_parse(path):
    for words in commands(path.read_text()):
        assert parse(words).info_name in words


def test_jobs_and_runbook_do_carry_commands():
    carrying = {path.name for path in PAGES if commands(path.read_text())}

    assert {"ingest-job.yaml", "embed-job.yaml", "train-job.yaml", "cluster.yaml", "aws.yaml", "RUNBOOK.md"} <= carrying


@pytest.mark.parametrize(
    "line", ["lesionary ingst a --lake b", "lesionary embed --gpu 1", "lesionary train unknown", "lesionary sync a b"]
)
def test_a_command_that_is_none_is_noticed(line):
    [words] = commands(f"# {line}\n")

    with pytest.raises((KeyError, TyperException)):
        parse(words)


def test_commands_of_folded_and_continued_lines_are_whole():
    text = (INFRA / "kuberay" / "ingest-job.yaml").read_text()

    [words] = commands(text)

    assert words[-2:] == ["--key-file", "/keys/pseudonyms.key"]
    assert (ROOT / "infra").is_dir()
