"""Fuzz one target with coverage guidance: `python tests/fuzz/fuzz_one.py NAME [libFuzzer options] [corpus folders]`.

Needs the extra `fuzz` (atheris). Normally started by `tests/fuzz/campaign.py`, which reads the statistics at the end.
"""

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import atheris


def main() -> None:
    """Run until libFuzzer's limits or a finding."""
    name = sys.argv.pop(1)
    from fuzz.registry import ENTRIES, load

    with atheris.instrument_imports(include=list(ENTRIES[name].instrumented)):
        target = load(name)
    from fuzz.contract import execute

    def mutate(data: bytes, most_bytes: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.25:
            return atheris.Mutate(data, most_bytes)
        changed = target.mutate(bytes(data), rng)
        return changed if len(changed) <= most_bytes else atheris.Mutate(data, most_bytes)

    sys.argv.insert(1, f"-max_len={target.most_bytes}")
    atheris.Setup(sys.argv, lambda data: execute(target, data), custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
