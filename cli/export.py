"""`lesionary export`: out of the lake again, in the formats that other tools read."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import live_line
from cli.options import DEFAULT_LAKE, JsonOption, LakeOption
from cli.render import write_json

if TYPE_CHECKING:
    from etl.export.selection import Choice

app = typer.Typer(help="Write a lake's lesions in other formats.", no_args_is_help=True)

OutArgument = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Folder to write into; must be empty or not there.")
]
PatientOption = Annotated[list[str] | None, typer.Option("--patient", help="Only this patient; repeatable.")]
SplitOption = Annotated[
    list[str] | None, typer.Option("--split", help="Only lesions of train, val or test; repeatable.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an export that is in the folder.")]


@app.command()
def deeplesion(
    out: OutArgument,
    lake: LakeOption = DEFAULT_LAKE,
    patient: PatientOption = None,
    split: SplitOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """A DeepLesion release: 16-bit PNG slices and DL_info.csv, from any lake."""
    from etl.export.deeplesion import export_deeplesion

    _run(export_deeplesion, lake, out, _choice(patient, split), as_json=as_json, force=force)


@app.command()
def nifti(
    out: OutArgument,
    lake: LakeOption = DEFAULT_LAKE,
    patient: PatientOption = None,
    split: SplitOption = None,
    compressed: Annotated[bool, typer.Option("--compressed/--uncompressed", help="Write .nii.gz or .nii.")] = True,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Volumes as NIfTI, one for each stretch of regular slices, with lesions.csv beside them."""
    from etl.export.nifti import export_nifti

    _run(export_nifti, lake, out, _choice(patient, split), as_json=as_json, force=force, compressed=compressed)


@app.command()
def coco(
    out: OutArgument,
    lake: LakeOption = DEFAULT_LAKE,
    patient: PatientOption = None,
    split: SplitOption = None,
    padding: Annotated[float, typer.Option("--padding", min=0, help="Pixels between diameters and box.")] = 5.0,
    pictures: Annotated[bool, typer.Option("--pictures", help="Also write key slices as 8-bit PNG.")] = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Boxes as COCO annotations, one file for each split."""
    from etl.export.coco import export_coco

    _run(
        export_coco, lake, out, _choice(patient, split), as_json=as_json, force=force, padding_px=padding,
        pictures=pictures,
    )  # fmt: skip


@app.command()
def sr(
    out: OutArgument,
    lake: LakeOption = DEFAULT_LAKE,
    patient: PatientOption = None,
    split: SplitOption = None,
    codes: Annotated[str, typer.Option("--codes", help="srt, which viewers of today look for, or sct.")] = "srt",
    uids: Annotated[
        Path | None, typer.Option("--uids", help="A map kept by ingest: real UIDs instead of pseudonymous ones.")
    ] = None,
    key_file: Annotated[Path | None, typer.Option("--key-file", help="The key of that map's pseudonyms.")] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measurement reports as DICOM SR (TID 1500), one for each study, under pseudonymous UIDs."""
    from etl.export.sr import export_sr
    from etl.export.sr_document import CODE_SETS
    from lesionary.errors import UsageError

    if codes not in CODE_SETS:
        raise UsageError("there are no such codes", where="--codes", next_step=f"known are {', '.join(CODE_SETS)}")
    real_uids = None
    if uids is not None:
        from etl.deidentify import confirmed_names, default_key_file, load_key

        real_uids = confirmed_names(uids, load_key(key_file or default_key_file()))
    _run(export_sr, lake, out, _choice(patient, split), as_json=as_json, force=force, codes=codes, real_uids=real_uids)


def _choice(patient: list[str] | None, split: list[str] | None) -> "Choice":
    from etl.export.selection import Choice
    from lesionary.errors import UsageError
    from lesionary.splits import SPLITS

    if unknown := set(split or ()) - set(SPLITS):
        raise UsageError(
            f"there is no split {', '.join(sorted(unknown))}",
            where="--split",
            next_step=f"known are {', '.join(SPLITS)}",
        )
    return Choice(tuple(patient or ()), tuple(split or ()))


def _run(
    export: Callable[..., Any], lake: str, out: Path, choice: "Choice", *, as_json: bool, **options: object
) -> None:
    """Run an export with a live line, and print what it wrote and what it left out."""
    from lesionary.lake import Lake

    with live_line() as show:
        summary = export(
            Lake.open(lake), out, choice, progress=lambda done, total: show(f"{done} of {total} series"), **options
        )
    values = asdict(summary)
    if as_json:
        write_json({"folder": str(out), **values})
        return
    left_out = values.pop("left_out")
    print(f"{out}: " + ", ".join(f"{count} {name}" for name, count in values.items()))
    if left_out:
        print("left out: " + ", ".join(f"{name} {count}" for name, count in left_out.items()))
