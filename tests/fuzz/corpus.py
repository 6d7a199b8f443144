"""Where inputs lie: a small corpus that reaches most of each parser, and every input that once broke a contract."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent
CORPUS = _HERE / "corpus"
FINDINGS = _HERE / "findings"


def stored_inputs(name: str) -> list[Path]:
    """The files of a target, findings first."""
    return [path for folder in (FINDINGS, CORPUS) for path in sorted((folder / name).glob("*")) if path.is_file()]
