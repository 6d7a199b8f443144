"""The full-size memory proofs, by hand: a command inside a limit, many times smaller than what it works through.

    python tests/memory/campaign.py ingest --limit-mb 256 --times 20
    python tests/memory/campaign.py ingest --limit-mb 1024 --times 20 --source folder -- --ray-address local --workers 1
    python tests/memory/campaign.py sync --limit-mb 2048 --lesions 5000000

Needs the right to make a control group (root, or a delegated one); says so where it used RLIMIT_DATA instead. What the
runs came to stands in docs/memory.md.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from memory.limited_commands import SOURCES, ask_within, ingest_within, make_lake, slices_in  # noqa: E402
from memory.memory_limit import LimitedRun  # noqa: E402


def main() -> None:
    """Run one proof and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scratch", type=Path, help="folder for source and lake; needs up to twice the source's size")
    proofs = parser.add_subparsers(dest="proof", required=True)
    ingest = proofs.add_parser("ingest")
    ingest.add_argument("--limit-mb", type=int, required=True)
    ingest.add_argument("--times", type=float, default=20.0)
    ingest.add_argument("--source", choices=sorted(SOURCES), default="zip")
    ingest.add_argument("options", nargs="*", default=["--workers", "1"], help="of `lesionary ingest`, behind --")
    sync = proofs.add_parser("sync")
    sync.add_argument("--limit-mb", type=int, required=True)
    sync.add_argument("--lesions", type=int, default=5_000_000)
    sync.add_argument("--more", type=int, default=100_000, help="lesions added before the second sync")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lesionary-memory-", dir=arguments.scratch) as scratch:
        (prove_ingest if arguments.proof == "ingest" else prove_sync)(Path(scratch), arguments)


def prove_ingest(folder: Path, arguments: argparse.Namespace) -> None:
    """Ingest a source so many times larger than the limit."""
    size = int(arguments.limit_mb * arguments.times) << 20
    run, slices = ingest_within(folder, arguments.limit_mb, size, *arguments.options, kind=arguments.source)
    said(f"ingest of {slices} slices, {size / 2**30:.2f} GiB as {arguments.source}", run)
    if run.returncode or slices_in(folder) != slices:
        raise SystemExit(f"failed:\n{run.output[-2000:]}")


def prove_sync(folder: Path, arguments: argparse.Namespace) -> None:
    """Sync a lake, add to it, sync again, and ask."""
    make_lake(folder, arguments.lesions)
    for name, words in {
        "first sync": ("sync",),
        "sync of some more": ("sync",),
        "sql": ("sql", "SELECT lesion_type, count(*), avg(long_mm) FROM lesion_features GROUP BY ALL ORDER BY ALL"),
        "similar": ("similar", "m-4711", "--feature-set", "location+size", "-k", "5"),
    }.items():
        if name == "sync of some more":
            make_lake(folder, arguments.more, first=arguments.lesions)
        run = ask_within(folder, arguments.limit_mb, *words)
        said(f"{name}, {arguments.lesions} lesions", run)
        if run.returncode:
            raise SystemExit(f"failed:\n{run.output[-2000:]}")


def said(what: str, run: LimitedRun) -> None:
    """One line of figures."""
    sys.stdout.write(
        f"{what}: exit {run.returncode} in {run.seconds:.0f} s inside {run.limit_bytes >> 20} MiB ({run.kind}); "
        f"held at most {run.peak_bytes >> 20} MiB; {run.kills} processes killed\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
