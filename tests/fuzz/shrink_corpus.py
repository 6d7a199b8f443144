"""Choose the repository's corpus: `python tests/fuzz/shrink_corpus.py [NAME …]`, after a campaign.

Out of the seeds, the stored corpus and what the campaign kept, the fewest and smallest inputs are taken that still
reach every line of the instrumented modules that any of them reaches; within a budget for each target.
"""

import hashlib
import importlib
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from fuzz.campaign import BUILD  # noqa: E402
from fuzz.contract import Target, execute  # noqa: E402
from fuzz.corpus import CORPUS  # noqa: E402
from fuzz.registry import ENTRIES, load  # noqa: E402

BUDGET_BYTES = 8_000
_MOST_TRIED = 400


def lines_reached(target: Target, data: bytes, files: frozenset[str]) -> frozenset[tuple[str, int, int]]:
    """Steps from line to line in some files while the target runs."""
    reached: set[tuple[str, int, int]] = set()

    def trace(frame, event, _argument):
        name = frame.f_code.co_filename
        if name not in files:
            return None
        last = 0

        def step(frame, event, _argument):
            nonlocal last
            if event == "line":
                reached.add((name, last, frame.f_lineno))
                last = frame.f_lineno
            return step

        return step

    sys.settrace(trace)
    try:
        execute(target, data)
    finally:
        sys.settrace(None)
    return frozenset(reached)


def shrink(name: str) -> tuple[int, int]:
    """Choose one target's corpus; how many inputs and bytes it has."""
    target = load(name)
    files = frozenset(str(importlib.import_module(one).__file__) for one in ENTRIES[name].instrumented)
    found = {path.read_bytes() for folder in (CORPUS / name, BUILD / name / "corpus") for path in folder.glob("*")}
    found |= set(target.seeds())
    candidates = sorted((one for one in found if len(one) <= BUDGET_BYTES), key=lambda one: (len(one), one))
    reached = {}
    for data in candidates[:_MOST_TRIED]:
        try:
            reached[data] = lines_reached(target, data, files)
        except Exception as error:  # noqa: BLE001 (whatever comes out is for a person to look at)
            print(f"  {name}: {type(error).__name__} {error}, left out: a finding?")
    chosen, covered, left = [], set(), BUDGET_BYTES
    while reached:
        # The most new steps for the least bytes.
        best = max(reached, key=lambda one: (len(reached[one] - covered) / (len(one) + 200), -len(one)))
        gained = reached.pop(best) - covered
        if not gained:
            break
        if len(best) <= left:
            chosen.append(best)
            covered |= gained
            left -= len(best)
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*"):
        path.unlink()
    for data in chosen:
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    return len(chosen), BUDGET_BYTES - left


if __name__ == "__main__":
    for wanted in sys.argv[1:] or ENTRIES:
        count, size = shrink(wanted)
        print(f"{wanted:<18}{count:>5} inputs{size:>8,} bytes", flush=True)
