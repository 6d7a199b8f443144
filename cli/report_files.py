"""Files of an evaluation's report: JSON, markdown and a chart, into a folder, or the chart alone."""

from pathlib import Path

from cli.console import note


def write_report(name: str, record: str, text: str, chart: bytes, picture: Path | None, folder: Path | None) -> None:
    """Write what was asked for.

    Args:
        name: of the files in the folder.
        record: the report as JSON.
        text: the report as markdown.
        chart: PNG.
        picture: where the chart alone goes.
        folder: where all three go.
    """
    from cli.figures.gallery import write_chart
    from lesionary.artifacts import atomic_write_bytes

    if picture is not None:
        write_chart(chart, picture)
        note(f"picture: {picture}")
    if folder is not None:
        write_chart(chart, folder / f"{name}.png")
        atomic_write_bytes(folder / f"{name}.json", f"{record}\n".encode())
        atomic_write_bytes(folder / f"{name}.md", f"{text}\n![{name}]({name}.png)\n".encode())
        note(f"report: {folder}/{name}.json, .md and .png")
