"""`lesionary`: every command, and the one boundary where errors become sentences.

Exit codes: 0 done, 1 our fault, 2 yours, 130 interrupted. A mistake of the person's is one line that says what, where
and what to do next; anything unexpected is one line and the way to its traceback. Heavy imports live inside the
commands: `--help` imports neither ray nor pyarrow nor DuckDB.
"""

import logging
import os
import sys
from typing import Annotated

import typer

from cli import (
    categorise,
    console,
    detect,
    doctor,
    embed,
    evaluate,
    export,
    features,
    ingest,
    lesion_map,
    locate,
    match,
    measure,
    models,
    patients,
    phantom,
    reidentify,
    response,
    show,
    similar,
    sql,
    sync,
    train,
)
from cli import lake as lake_commands
from lesionary import __version__
from lesionary.core_dumps import forbid_core_dumps
from lesionary.errors import LesionaryError

_DEBUG = "LESIONARY_DEBUG"
_INTERRUPTED = 130

app = typer.Typer(
    name="lesionary",
    help="Mine measured lesions out of DeepLesion releases and PACS exports, and ask about them.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"lesionary {__version__}")
        raise typer.Exit


@app.callback()
def prepare(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")] = False,
    debug: Annotated[bool, typer.Option("--debug", envvar=_DEBUG, help="Log more, and show tracebacks.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Mine measured lesions out of DeepLesion releases and PACS exports, and ask about them."""
    forbid_core_dumps()
    if quiet:
        console.be_quiet()
    if debug:
        os.environ[_DEBUG] = "1"
    handler = logging.StreamHandler()
    handler.setFormatter(_WithoutCredentials("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, handlers=[handler])


app.command("ingest")(ingest.ingest)
app.command("embed")(embed.embed)
app.command("locate")(locate.locate)
app.command("detect")(detect.detect)
app.command("measure")(measure.measure)
app.command("sync")(sync.sync)
app.command("sql")(sql.sql)
app.command("train")(train.train)
app.command("show")(show.show)
app.command("similar")(similar.similar)
app.command("match")(match.match)
app.command("map")(lesion_map.lesion_map)
app.command("response")(response.response)
app.command("reidentify")(reidentify.reidentify)
app.command("doctor")(doctor.doctor)
app.add_typer(lake_commands.app, name="lake")
app.add_typer(categorise.app, name="categorise")
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(export.app, name="export")
app.add_typer(features.app, name="features")
app.add_typer(models.app, name="models")
app.add_typer(patients.app, name="patients")
app.add_typer(phantom.app, name="phantom")


def main() -> None:
    """Run the command line; the console script."""
    try:
        app()
    except LesionaryError as error:
        if os.environ.get(_DEBUG):
            logging.getLogger(__name__).exception("the traceback asked for with --debug")
        _leave(str(error), error.exit_code)
    except SystemExit as leaving:
        if leaving.code == _INTERRUPTED:
            _leave("interrupted; what was committed is kept, the same command goes on from there", _INTERRUPTED)
        raise
    except Exception as error:
        if os.environ.get(_DEBUG):
            logging.getLogger(__name__).exception("unexpected")
        if (refusal := _refusal_of(error)) is not None:
            _leave(f"{refusal}; make room or check your rights, and run the same command again", 2)
        if isinstance(error, OSError):
            _leave_to_the_store(error)
        _leave(f"unexpected {type(error).__name__}; run again as `lesionary --debug …` to see where", 1)


def _refusal_of(error: Exception) -> str | None:
    """What the system would not do, and where if it says so: a full disk is nobody's bug."""
    from lesionary.artifacts import refusal_of

    refusal, place = refusal_of(error), getattr(error, "filename", None)
    return f"{place}: {refusal}" if refusal and place else refusal


def _leave_to_the_store(error: OSError) -> None:
    """An object store's failure is nobody's mistake, but not an unexpected one either."""
    from lesionary.object_stores import is_of_a_store, trouble

    if is_of_a_store(error):
        _leave(f"object store: {trouble(error)}; check it and run the same command again: what is there is kept", 2)


class _WithoutCredentials(logging.Formatter):
    """Messages and tracebacks with the environment's credentials blotted out."""

    def format(self, record: logging.LogRecord) -> str:
        from lesionary.object_stores import without_credentials

        return without_credentials(super().format(record))


def _leave(sentence: str, code: int) -> None:
    print(f"lesionary: {sentence}", file=sys.stderr)
    sys.exit(code)
