"""docs/sql.md taken apart: its questions, and the lake that its own commands make."""

import os
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from store.queries import ask

PAGE = Path(__file__).parents[1] / "docs" / "sql.md"
# All commands in one process of their own: importing costs more than running, and readers limit their process.
RUN_COMMANDS = """
import shlex, sys
from cli.main import app
for line in sys.stdin:
    app(shlex.split(line), standalone_mode=False)
"""


class Question(NamedTuple):
    """One heading of the page with its SQL and the answer printed under it."""

    words: str
    sql: str
    printed: str


def questions():
    """Every question of the page, in its order."""
    parts = re.split(r"^### ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    found = []
    for part in parts:
        (sql,), (printed,) = (re.findall(rf"```{kind}\n(.*?)```", part, re.DOTALL) for kind in ("sql", "text"))
        found.append(Question(part.split("\n", maxsplit=1)[0], sql, printed))
    return found


QUESTIONS = questions()


def make_guide_store(folder):
    """The store of the page's lake, made with the page's own commands."""
    ((lake, block),) = re.findall(r"```sh\nexport LESIONARY_LAKE=(\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = block.splitlines()
    (key,) = (line for line in lines if not line.startswith("lesionary "))
    commands = [line.removeprefix("lesionary ") for line in lines if line.startswith("lesionary ")]
    # One worker draws the same bytes as many.
    commands = [f"{line} --workers 1" if line.startswith("phantom ") else line for line in commands]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LESIONARY_")} | {
        "LESIONARY_LAKE": lake,
        "XDG_CONFIG_HOME": str(folder / "config"),
    }
    (folder / shlex.split(key.split(">")[1])[0]).parent.mkdir(parents=True)
    subprocess.run(["sh", "-c", key], cwd=folder, check=True)
    done = subprocess.run(
        [sys.executable, "-c", RUN_COMMANDS],
        input="\n".join(commands), env=environment, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / lake / "features.duckdb"


def answer_in(connection, words):
    """The rows of a question's answer, found by the beginning of its words."""
    (question,) = (one for one in QUESTIONS if one.words.startswith(words))
    return as_dictionaries(ask(connection, question.sql))


def as_dictionaries(asked):
    """Rows by the names of their columns."""
    return [dict(zip(asked.columns, row, strict=True)) for row in asked.rows]


def grouped(rows, *names):
    """Rows by the values of some columns."""
    groups = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in names)].append(row)
    return groups


def write_answer(question, answer):
    """Put another answer under a question of the page."""
    old = f"{question.sql}```\n\n```text\n{question.printed}"
    PAGE.write_text(PAGE.read_text().replace(old, f"{question.sql}```\n\n```text\n{answer}"))
