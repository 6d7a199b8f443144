"""`lesionary evaluate masks`: how near the masks of marked lesions come to a phantom's true ones."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DEFAULT_LAKE, JsonOption, LakeOption, PictureOption
from cli.render import as_json_text
from cli.report_files import write_report

if TYPE_CHECKING:
    from etl.mask_scores import MaskReport, MaskScores


def masks(
    truth: Annotated[Path, typer.Option("--truth", metavar="FILE", help="A phantom's truth_masks.json.")],
    namespace: Annotated[str, typer.Option("--namespace", help="That the phantom was ingested under.")] = "dl",
    picture: PictureOption = None,
    report_folder: Annotated[
        Path | None, typer.Option("--report", metavar="FOLDER", help="Also write masks.json, .md and .png here.")
    ] = None,
    as_json: JsonOption = False,
    lake: LakeOption = DEFAULT_LAKE,
) -> None:
    """Score what `lesionary measure` kept of marked lesions: Dice in 2-D and 3-D, diameters, volumes.

    A lesion without a mask has a Dice of 0. Diameters and volumes are compared where there is a mask.
    """
    from etl.mask_scores import mask_report, read_true_lesions, score_lesions
    from lesionary.lake import Lake

    true = read_true_lesions(truth)
    opened = Lake.open(lake)
    scores, not_scored = score_lesions(opened, true, namespace)
    report = mask_report(opened, scores, not_scored)
    record, text = as_json_text(asdict(report)), _markdown(report)
    # Files before anything is printed: whoever reads may close the pipe early.
    if picture is not None or report_folder is not None:
        from cli.figures.mask_scores import mask_chart

        write_report("masks", record, text, mask_chart(scores), picture, report_folder)
    print(record if as_json else text)


def _markdown(report: "MaskReport") -> str:
    """The scores as a page."""
    from store.score_tables import as_markdown_table

    header = (
        "lesions", "", "masked", "Dice 2-D mean", "median", "Dice 3-D mean", "median", "long, mm: median", "95th",
        "short, mm: median", "95th", "volume: median", "95th",
    )  # fmt: skip
    groups = {"all": report.scores} | dict(report.by_size) | dict(report.by_type)
    left_out = sum(report.not_scored.values())
    reasons = f" ({', '.join(f'{name} {count}' for name, count in report.not_scored.items())})" if left_out else ""
    versions = ", ".join(f"{table} {version}" for table, version in report.lake_versions.items())
    parts = (
        f"# Masks by `{report.method}`",
        f"{report.scores.lesions:,} lesions scored, {left_out:,} not{reasons}. Errors are absolute.",
        as_markdown_table(header, [_row(name, scores) for name, scores in groups.items()]),
        f"Made by lesionary {report.lesionary}; versions of the lake's tables: {versions}.",
    )
    return "\n\n".join(parts) + "\n"


def _row(name: str, scores: "MaskScores") -> tuple[str, ...]:
    shares = (scores.dice_2d_mean, scores.dice_2d_median, scores.dice_3d_mean, scores.dice_3d_median)
    lengths = (
        scores.long_error_mm_median, scores.long_error_mm_p95, scores.short_error_mm_median, scores.short_error_mm_p95,
    )  # fmt: skip
    volumes = (scores.volume_error_median, scores.volume_error_p95)
    return (
        name.replace("_", " "),
        f"{scores.lesions:,}",
        f"{scores.masked:,}",
        *(f"{share:.3f}" for share in shares),
        *("" if length is None else f"{length:.2f}" for length in lengths),
        *("" if volume is None else f"{100 * volume:.0f} %" for volume in volumes),
    )
