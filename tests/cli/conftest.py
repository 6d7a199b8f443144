"""Commands run in this process, as a person types them."""

import pytest
from typer.testing import CliRunner

from cli.main import app
from lesionary.errors import LesionaryError


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command in an empty folder; gives its exit code, stdout and stderr as the console script would."""
    monkeypatch.chdir(tmp_path)
    # Commands guard the process they own; this one is the tests'.
    monkeypatch.setattr("store.limits._guards", [])
    for name in ("LESIONARY_LAKE", "LESIONARY_STORE", "LESIONARY_DEBUG", "LESIONARY_QUIET", "LESIONARY_CONFIG"):
        # Set first, so that what a command sets is taken back afterwards: a name that is merely missing is not.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    def call(*arguments, stdin=None):
        result = CliRunner().invoke(app, [str(one) for one in arguments], input=stdin)
        if isinstance(result.exception, LesionaryError):
            return result.exception.exit_code, result.stdout, str(result.exception)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return call
