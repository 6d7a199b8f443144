"""`lesionary reidentify`: from a pseudonym back to what it stands for, for who holds the key and a kept map."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options import JsonOption
from cli.render import write_json


def reidentify(
    pseudonyms: Annotated[list[str], typer.Argument(metavar="PSEUDONYM…", help="Patients, studies, images, …")],
    map_file: Annotated[Path, typer.Option("--map", help="A map written by `ingest --keep-map`.")],
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="The key. [default: in your configuration folder]")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what pseudonyms stand for; only names that the key confirms are given."""
    from etl.deidentify import default_key_file, load_key, look_up
    from lesionary.errors import UsageError

    path = key_file or default_key_file()
    if not path.is_file():
        raise UsageError("there is no key", where="--key-file", next_step="name the key that the ingest used")
    found = list(look_up(map_file, load_key(path), pseudonyms))
    if as_json:
        write_json([{"pseudonym": name, "kind": kind, "identifier": known} for name, kind, known in found])
    else:
        for name, kind, known in found:
            print(f"{name}  {kind}  {known}")
    if missing := set(pseudonyms) - {name for name, _, _ in found}:
        raise UsageError(
            f"the map does not hold {len(missing)} of {len(pseudonyms)} pseudonyms, or the key is another",
            where="--map",
            next_step="name the map and key of the ingest that made them",
        )
