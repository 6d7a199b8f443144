"""The house holds: one root, own names, layers, and light imports."""

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from small_stores import make_store

from lesionary.provenance import PACKAGES, package_root
from store.database import open_writer

ROOT = Path(__file__).parents[1]
HEAVY = (
    "torch", "ray", "pyarrow", "duckdb", "deltalake", "imagecodecs", "PIL", "numpy", "faiss", "scipy", "sklearn",
    "matplotlib", "pydantic",
)  # fmt: skip


def modules_after(*arguments, environment=None):
    """Heavy modules loaded by a command of ours, and its exit code."""
    program = (
        "import sys, atexit\n"
        f"atexit.register(lambda: sys.stderr.write('LOADED ' + ' '.join(m for m in {HEAVY!r} if m in sys.modules)))\n"
        "from cli.main import main\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        check=False,
    )
    return set(done.stderr.rsplit("LOADED ", 1)[1].split()), done


def test_packages_lie_under_one_root():
    for name in PACKAGES:
        assert Path(importlib.util.find_spec(name).origin).parents[1] == package_root()


def test_no_other_distribution_owns_our_names():
    owners = importlib.metadata.packages_distributions()

    for name in PACKAGES:
        assert set(owners.get(name, ["lesionary"])) == {"lesionary"}, name


def test_layers_hold():
    script = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([script], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


def test_ray_is_imported_only_where_it_may_be():
    allowed = re.compile(r"etl/\w+_job\.py|trainers/(?:launch|node_addresses)\.py|cli/cluster(?:_watch)?\.py")
    imports = re.compile(r"^\s*(?:import|from) ray\b", re.MULTILINE)

    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            assert allowed.fullmatch(name) or not imports.search(path.read_text()), name


def test_every_package_folder_is_listed_for_the_wheel():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
    }

    assert set(listed) == found


def test_pins_are_names_and_versions_only():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.!+-]+", line), line


@pytest.mark.parametrize(
    "words",
    [["--help"], ["sql", "--help"], ["ingest", "--help"], ["phantom", "release", "--help"], ["train", "--help"]],
)
def test_help_loads_nothing_heavy(words):
    loaded, done = modules_after(*words)

    assert done.returncode == 0
    assert loaded == set()


def test_sql_loads_the_engine_and_nothing_else(tmp_path):
    with open_writer(tmp_path / "features.duckdb"):
        pass
    loaded, done = modules_after("sql", "select count(*) from lesions", "--store", str(tmp_path / "features.duckdb"))

    assert done.returncode == 0, done.stderr
    assert "0" in done.stdout
    assert loaded - {"numpy"} == {"duckdb"}


@pytest.mark.parametrize(
    "words",
    [
        ["similar", "t-1", "--where", "long_mm > 1"],
        ["match", "t-p1"],
        ["response", "t-p1"],
        ["features", "list"],
    ],
)
def test_questions_load_the_engine_and_numpy_only(tmp_path, words):
    lesions = [{"lesion_id": f"t-{at}", "patient_id": f"t-p{at}", "series_id": f"s{at}"} for at in range(3)]
    make_store(tmp_path / "features.duckdb", lesions)

    loaded, done = modules_after(*words, "--store", str(tmp_path / "features.duckdb"))

    assert done.returncode == 0, done.stderr
    assert loaded == {"duckdb", "numpy"}


def test_every_module_says_what_it_owns():
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            assert path.read_text().startswith('"""'), path
