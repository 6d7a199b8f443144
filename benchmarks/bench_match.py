"""Algorithm 1 over every patient of a full-sized store, against the plain loop that the tests compare it with.

    python benchmarks/bench_match.py [--rounds 5] [--patients 4427] [--lesions 32735] [--plain-patients 400]

The store is drawn: as many patients and lesions as the release has, lesions and studies per patient as heavy-tailed as
in the published test split (half of the patients have up to four lesions, one in a hundred about 50; as many pairs
within patients), each lesion seen in several studies with noise. Features have 5 values (location and size) and 1,024
(an embedding).

The plain loop is `tests/match_oracle.py`: lists, `math.dist`, one patient after the other, each distance once. Both
take the same arrays, which the plain loop first turns into lists, and find everything: nodes, groups, states, edges
with confidences, vanished. For 5 values the plain loop runs over all patients; for 1,024 over `--plain-patients` of
them, and its time is scaled by the number of pairs of lesions within patients.

Seconds are the processor's, of one thread. Memory is the growth of the peak over the call, in a process of its own.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
from match_oracle import match_plainly
from measure import alone, measured, median, ratio, report
from threadpoolctl import threadpool_limits

from store.matching import Sightings, Thresholds, match


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--patients", type=int, default=4427)
    parser.add_argument("--lesions", type=int, default=32735)
    parser.add_argument("--plain-patients", type=int, default=400)
    quick = {"rounds": 2, "patients": 600, "lesions": 4_400, "plain_patients": 60}
    with measured(parser, quick) as arguments, threadpool_limits(1):
        for dimension, plain_patients in ((5, arguments.patients), (1024, arguments.plain_patients)):
            compare(dimension, arguments.patients, arguments.lesions, plain_patients, arguments.rounds)


def compare(dimension: int, patients: int, lesions: int, plain_patients: int, rounds: int) -> None:
    drawn = draw(dimension, patients, lesions)
    thresholds = thresholds_for(dimension)
    some = drawn.patients % max(1, patients // plain_patients) == 0
    part = Sightings(drawn.patients[some], drawn.studies[some], drawn.vectors[some])
    scale = pairs(drawn) / pairs(part)
    match(part, thresholds)
    ours, plain = [], []
    for _ in range(rounds):
        # One call is over before the machine has settled: five to each run of the plain loop.
        ours.extend(seconds(lambda: match(drawn, thresholds)) for _ in range(5))
        plain.append(seconds(lambda: plain_loop(part, thresholds)) * scale)
    found = match(drawn, thresholds)
    print(
        f"{dimension} values: {lesions} lesions of {patients} patients, {pairs(drawn)} pairs, "
        f"{found.node.max() + 1} nodes, {found.group.max() + 1} groups, {found.edges.kind.size} edges; "
        f"medians of {rounds} rounds"
    )
    scaled = f" (from 1 in {scale:.1f} pairs)" if scale > 1 else ""
    print(f"  plain loop {median(plain):7.2f} s{scaled}\n  ours       {median(ours):7.3f} s")
    grown = alone(growth_mb, dimension, patients, lesions).value
    ratio(f"{dimension} values, over the plain loop", median(plain) / median(ours), at_least=30)
    report(f"{dimension} values, every patient", f"{median(ours):.2f} s", "< 5", holds=median(ours) < 5)
    report(f"{dimension} values, memory beside the input", f"{grown:.0f} MB", "< 200", holds=grown < 200)


def plain_loop(part: Sightings, thresholds: Thresholds) -> None:
    lists = part.patients.tolist(), part.studies.tolist(), part.vectors.tolist()
    match_plainly(*lists, thresholds.t1, thresholds.t2)


def draw(dimension: int, patients: int, lesions: int) -> Sightings:
    """A store of that size, its rows in random order."""
    random = np.random.default_rng(11)
    weights = np.clip(random.lognormal(np.log(4.0), 1.15, patients), 1, 100)
    counts = 1 + random.multinomial(lesions - patients, weights / weights.sum())
    studies = np.ceil(counts**0.6 * random.uniform(0.5, 1.2, patients)).astype(np.int64)
    owners = np.repeat(np.arange(patients), counts)
    # About every lesion is seen 1.8 times, in the same study or another.
    true_of = np.cumsum(counts) - counts
    true_lesion = true_of[owners] + (random.random(lesions) * np.ceil(counts[owners] / 1.8)).astype(np.int64)
    centers = random.random((lesions, dimension), dtype=np.float32)
    vectors = centers[true_lesion]
    vectors += random.normal(scale=0.02, size=vectors.shape).astype(np.float32)
    times = (random.random(lesions) * studies[owners]).astype(np.int64)
    shuffle = random.permutation(lesions)
    return Sightings(owners[shuffle], times[shuffle], vectors[shuffle])


def thresholds_for(dimension: int) -> Thresholds:
    """Two looks at a lesion lie about .02 · √(2 d) apart."""
    noise = 0.02 * float(np.sqrt(2 * dimension))
    return Thresholds(1.2 * noise, 2.5 * noise)


def pairs(drawn: Sightings) -> int:
    counts = np.bincount(drawn.patients)
    return int((counts * (counts - 1) // 2).sum())


def seconds(work: Callable[[], object]) -> float:
    """Of the processor: other work on the machine disturbs these little."""
    started = time.process_time()
    work()
    return time.process_time() - started


def growth_mb(dimension: int, patients: int, lesions: int) -> float:
    drawn = draw(dimension, patients, lesions)
    few = drawn.patients < 20
    match(Sightings(drawn.patients[few], drawn.studies[few], drawn.vectors[few]), thresholds_for(dimension))
    # Drawing peaks above what it leaves: hold as much as its peak, so that growth beyond is the call's own.
    ballast = np.ones(max(0, peak_kb() - resident_kb()) * 1024, dtype=np.uint8)
    before = peak_kb()
    match(drawn, thresholds_for(dimension))
    return (peak_kb() - before) / 1024 + 0 * ballast.size


def peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def resident_kb() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


if __name__ == "__main__":
    main()
