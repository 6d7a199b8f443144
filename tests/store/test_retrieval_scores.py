"""ARE and precision equal slow oracles, and the published baseline on the published rows."""

import csv
import math

import numpy as np
import pytest

from store.retrieval_scores import Labelled, retrieval_errors


def close(found, expected):
    return found == expected or (None not in (found, expected) and math.isclose(found, expected, rel_tol=1e-12))


def errors_by_loops(labelled, top, same_patient, normaliser):
    """Oracle: sort all pairs, then collect each kind of error hit by hit."""
    n = len(labelled.types)
    vectors = labelled.vectors.tolist()
    types, locations, sizes = labelled.types.tolist(), labelled.locations.tolist(), labelled.sizes_mm.tolist()
    kinds, places, extents = [], [], []
    matches = {1: [], 5: [], 10: []}
    lonely = 0
    for query in range(n):
        others = [
            (sum((a - b) ** 2 for a, b in zip(vectors[query], vectors[i], strict=True)), i)
            for i in range(n)
            if i != query and (same_patient or labelled.patients[i] != labelled.patients[query])
        ]
        hits = [i for _, i in sorted(others)]
        lonely += not hits
        for rank, hit in enumerate(hits, start=1):
            if types[query] != -1 and types[hit] != -1:
                for k, found in matches.items():
                    if rank <= k:
                        found.append(types[query] == types[hit])
                if rank <= top:
                    kinds.append(types[query] != types[hit])
            if rank <= top:
                place = math.dist(locations[query], locations[hit])
                extent = math.dist(sizes[query], sizes[hit]) / normaliser
                places += [] if math.isnan(place) else [place]
                extents += [] if math.isnan(extent) else [extent]

    def mean(values, factor):
        return factor * math.fsum(values) / len(values) if values else None

    return (
        lonely,
        mean(kinds, 100),
        mean(places, 100),
        mean(extents, 100),
        {k: mean(values, 1) for k, values in matches.items()},
    )


def random_lesions(generator):
    n = int(generator.integers(1, 15))
    grid = generator.integers(0, 3, (n, 2)) if generator.integers(2) else generator.random((n, 2))
    locations, sizes = generator.random((n, 3)), generator.random((n, 2)) * 40
    locations[generator.random(n) < 0.2, generator.integers(3)] = np.nan
    sizes[generator.random(n) < 0.2, 1] = np.nan
    return Labelled(
        grid.astype(np.float32),
        generator.integers(0, generator.integers(1, 5), n),
        generator.integers(-1, generator.integers(1, 8), n),
        locations,
        sizes,
    )


def test_errors_are_those_of_plain_loops_in_a_thousand_small_sets():
    generator = np.random.default_rng(0)

    for _ in range(1000):
        labelled = random_lesions(generator)
        top, normaliser = int(generator.integers(1, 8)), float(generator.choice([1.0, 100.0, 232.0]))
        same_patient = bool(generator.integers(2))

        found = retrieval_errors(labelled, top=top, same_patient=same_patient, size_normaliser_mm=normaliser)

        lonely, kind, place, extent, precision = errors_by_loops(labelled, top, same_patient, normaliser)
        assert found.queries_without_hit == lonely
        assert close(found.type_percent.mean, kind)
        assert close(found.location_percent.mean, place)
        assert close(found.size_percent.mean, extent)
        assert all(close(found.precision_at[k], precision[k]) for k in (1, 5, 10))


@pytest.fixture(scope="module")
def official_lesions(official_test_rows):
    with official_test_rows.open(newline="") as source:
        rows = list(csv.DictReader(source))

    def numbers(name):
        return np.array([[float(value) for value in row[name].split(",")] for row in rows])

    locations = numbers("Normalized_lesion_location")
    return Labelled(
        locations.astype(np.float32),
        np.array([int(row["Patient_index"]) for row in rows]),
        np.array([int(row["Coarse_lesion_type"]) - 1 for row in rows]),
        locations,
        numbers("Lesion_diameters_Pixel_") * numbers("Spacing_mm_px_")[:, :1],
    )


def test_location_reaches_the_papers_baseline_on_the_published_rows(official_lesions):
    allowed = retrieval_errors(official_lesions, same_patient=True)

    assert allowed.queries == 4927
    assert allowed.type_percent.mean == pytest.approx(22.4, abs=1.0)
    assert allowed.location_percent.mean == pytest.approx(2.5, abs=0.3)


def test_without_the_own_patient_retrieval_is_harder(official_lesions):
    allowed = retrieval_errors(official_lesions, same_patient=True)
    excluded = retrieval_errors(official_lesions, same_patient=False)

    assert excluded.type_percent.mean > allowed.type_percent.mean + 2
    assert excluded.location_percent.mean > allowed.location_percent.mean
    assert excluded.queries_without_hit == 0


def test_the_interval_holds_the_mean_and_needs_two_patients(official_lesions):
    errors = retrieval_errors(official_lesions, same_patient=True).type_percent
    lone = Labelled(
        np.eye(3, dtype=np.float32), np.zeros(3, np.int64), np.array([0, 1, 1]), np.zeros((3, 3)), np.ones((3, 2))
    )

    alone = retrieval_errors(lone, same_patient=True).type_percent

    assert errors.low < errors.mean < errors.high
    assert errors.high - errors.low < 5
    assert (alone.low, alone.high, alone.pairs) == (None, None, 6)
