"""Ray workers run our code, whatever lies around the person who calls."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from cli.cluster import _keep_token_private, ray_session
from cli.main import app
from lesionary.errors import UsageError

PROGRAM = "from cli.main import main; main()"

# Work that grows with the lake or the source; the others ask the store, look up, or copy what fits through one process.
BULK = {"ingest", "embed", "locate", "detect", "measure", "train", "categorise apply"}


def test_every_command_with_bulk_work_takes_a_cluster():
    def with_option(command, words=()):
        if any("--ray-address" in parameter.opts for parameter in command.params):
            yield " ".join(words)
        for name, inner in getattr(command, "commands", {}).items():
            yield from with_option(inner, (*words, name))

    assert set(with_option(get_command(app))) == BULK


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_data_folders_named_like_our_packages_do_not_shadow_them(tmp_path, release):
    for name in ("store", "etl", "lesionary", "cli"):
        (tmp_path / "here" / name).mkdir(parents=True)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, "ingest", str(release), "--lake", "lake", "--ray-address", "local"],
        cwd=tmp_path / "here",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )

    assert done.returncode == 0, done.stderr
    assert "15 found = 15 accepted" in done.stdout
    assert (tmp_path / "here" / "lake" / "lake.json").is_file()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_session_folders_of_killed_drivers_are_swept_away_even_where_temporary_paths_are_long(tmp_path):
    stale = Path("/tmp/lsn-ray-999999999-x")
    stale.mkdir(exist_ok=True)
    own = Path(f"/tmp/lsn-ray-{os.getpid()}-y")
    own.mkdir()
    program = (
        "from cli.cluster import ray_session\nimport os, ray\n"
        "with ray_session(workers=1):\n"
        "    mine = [name for name in os.listdir('/tmp') if name.startswith(f'lsn-ray-{os.getpid()}-')]\n"
        "    assert len(mine) == 1, mine\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    try:
        with subprocess.Popen([sys.executable, "-c", program], env=environment) as process:
            assert process.wait(100) == 0
        assert not stale.exists()
        assert own.exists()
        assert not [name for name in os.listdir("/tmp") if name.startswith(f"lsn-ray-{process.pid}-")]
    finally:
        own.rmdir()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_cluster_that_does_not_answer_is_named():
    with (
        pytest.raises(UsageError, match="--ray-address 127.0.0.1:1: the Ray cluster does not answer"),
        ray_session("127.0.0.1:1"),
    ):
        pass


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_token_of_our_own_ray_is_for_its_owner_alone(home):
    token = home / ".ray" / "auth_token"

    _keep_token_private()
    made = token.read_text()
    token.chmod(0o644)  # as Ray leaves it
    _keep_token_private()

    assert len(made.strip()) == 64
    assert token.read_text() == made
    assert token.stat().st_mode & 0o777 == 0o600
    assert (home / ".ray").stat().st_mode & 0o777 == 0o700


def test_token_that_somebody_handed_in_is_left_alone(home, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")

    _keep_token_private()

    assert not (home / ".ray").exists()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_nobody_without_the_token_runs_code_on_our_own_ray(home):
    program = (
        "import os, subprocess, sys\n"
        "from cli.cluster import ray_session\n"
        "stranger = 'import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False)'\n"
        "with ray_session(workers=1):\n"
        "    import ray\n"
        "    address = ray.get_runtime_context().gcs_address\n"
        "    environment = {**os.environ, 'RAY_AUTH_MODE': 'token', 'RAY_AUTH_TOKEN': '0' * 64}\n"
        "    done = subprocess.run([sys.executable, '-c', stranger, address], env=environment, capture_output=True)\n"
        "    assert done.returncode != 0\n"
        "    assert b'InvalidAuthToken' in done.stderr, done.stderr\n"
        "    del environment['RAY_AUTH_TOKEN']\n"
        "    owner = subprocess.run([sys.executable, '-c', stranger, address], env=environment, capture_output=True)\n"
        "    assert owner.returncode == 0, owner.stderr\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=170)

    assert done.returncode == 0, done.stderr
    assert (home / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
