"""The image installs what pyproject.toml says, pinned, and nothing of the checkout that it should not.

No image is built here: what its file says is compared with what the project says.
"""

import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def instructions():
    """(stage, instruction, arguments) of the Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n", " ", (ROOT / "infra" / "Dockerfile").read_text())
    stage = ""
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stage = rest.rpartition(" AS ")[2]
        yield stage, word, " ".join(rest.split())


def pip_commands(stage):
    commands = [part for at, word, rest in instructions() if at == stage and word == "RUN" for part in rest.split("&&")]
    return [shlex.split(part) for part in commands if "pip install" in part or "pip wheel" in part]


@pytest.mark.parametrize(("stage", "extras"), [("slim", {"cluster"}), ("gpu", {"cluster", "train"})])
def test_each_target_installs_the_project_with_extras_that_exist(stage, extras):
    [command] = pip_commands(stage)

    [wanted] = [word for word in command if word.startswith("lesionary")]
    asked = set(re.fullmatch(r"lesionary\[(.+)\]", wanted)[1].split(","))
    assert asked == extras
    assert asked <= set(PROJECT["project"]["optional-dependencies"])


def test_nothing_is_installed_without_the_pins():
    for stage in ("wheel", "slim", "gpu"):
        for command in pip_commands(stage):
            if "install" in command:
                assert command[command.index("--constraint") + 1].endswith("constraints.txt"), command
            else:
                assert "--no-deps" in command, command
                assert "--no-build-isolation" in command, command


def test_build_tool_of_the_wheel_is_pinned_and_new_enough():
    [required] = PROJECT["build-system"]["requires"]
    least = int(required.removeprefix("setuptools>="))

    pinned = re.search(r"^setuptools==(\d+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)

    assert int(pinned[1]) >= least


def test_targets_run_as_somebody_who_is_not_root_and_prove_themselves():
    for stage in ("slim", "gpu"):
        of_stage = [(word, rest) for at, word, rest in instructions() if at == stage]
        users = [rest for word, rest in of_stage if word == "USER"]
        assert users[-1] == "1000:1000", stage
        smoke = max(number for number, (_, rest) in enumerate(of_stage) if "lesionary doctor" in rest)
        assert smoke > max(number for number, (word, _) in enumerate(of_stage) if word == "USER"), stage


def test_python_of_the_image_is_one_that_the_project_takes():
    [base] = [rest for _, word, rest in instructions() if word == "ARG"]

    major, minor = re.search(r"python:(\d+)\.(\d+)", base).groups()

    assert (int(major), int(minor)) >= (3, 11)
    assert PROJECT["project"]["requires-python"] == ">=3.11"


def test_image_gets_every_package_of_the_wheel_and_only_what_it_copies():
    copied = {
        name
        for _, word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for name in rest.split()[:-1]
    }
    assert {package.split(".")[0] for package in PROJECT["tool"]["setuptools"]["packages"]} <= copied

    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert allowed == copied
    assert (ROOT / ".dockerignore").read_text().split("\n")[1] == "*"
    for name in copied:
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize(
    "name", [".git", ".venv", "lake", "demo", "pseudonyms.key", "features.duckdb", "tests", "docs"]
)
def test_nothing_else_of_the_checkout_reaches_a_layer(name):
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]

    assert not any(fnmatch(name, line[1:]) for line in lines if line.startswith("!"))
    assert any(fnmatch(name, line) for line in lines if not line.startswith("!"))
