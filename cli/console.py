"""What people see besides results: notes and one live line, always on stderr, so that results can be piped."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator

_QUIET = "LESIONARY_QUIET"
_REFRESH_S = 0.2
_CLEAR_LINE = "\r\x1b[2K"


def be_quiet() -> None:
    """Say nothing but results and errors, in this process and those it starts."""
    os.environ[_QUIET] = "1"


def note(text: str) -> None:
    """One line for a person."""
    if not os.environ.get(_QUIET):
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def live_line() -> Iterator[Callable[[str], None]]:
    """A line that is written over and over on a terminal; elsewhere nothing is printed until the end."""
    shown = sys.stderr.isatty() and not os.environ.get(_QUIET)
    last = 0.0

    def show(text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if shown and now - last >= _REFRESH_S:
            last = now
            sys.stderr.write(f"{_CLEAR_LINE}{text}")
            sys.stderr.flush()

    try:
        yield show
    finally:
        if shown and last:
            sys.stderr.write(_CLEAR_LINE)
            sys.stderr.flush()


def human_seconds(seconds: float | None) -> str:
    """3.2 s, 4 min 05 s, 2 h 10 min; an ellipsis when unknown."""
    if seconds is None:
        return "…"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def human_bytes(count: float) -> str:
    """712 B, 3.4 MB, 1.2 TB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def counted(number: int, one: str, many: str | None = None) -> str:
    """Such as "1 study" and "2 studies"."""
    return f"{number} {one if number == 1 else many or one + 's'}"
