"""Truth files become groups of the given lesions, and nothing of them is lost in silence."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from lesionary.errors import UsageError
from store import truth_pairs
from store.matching_scores import pair_scores
from store.truth_mentions import KnownLesions
from store.truth_pairs import read_truth

CROSS = (261.2, 213.2, 285.2, 213.2, 273.7, 225.7, 272.8, 204.3)


def known_lesions(count=6, namespace="dl", patients=None):
    """Lesion N of study N on slice 10 + N, every one measured by the same cross, one-based."""
    numbers = range(1, count + 1)
    return KnownLesions(
        lesion_ids=[f"{namespace}-{number}" for number in numbers],
        patient_ids=patients or [f"{namespace}-000001"] * count,
        series_ids=[f"{namespace}-000001_{number:02d}_01" for number in numbers],
        slice_indices=np.array([10 + number for number in numbers]),
        points_px=np.tile(np.array(CROSS) + 1, (count, 1)),
        first_centers=np.ones(count),
    )


def both(one, other):
    """The lesions of two lists as one."""
    return KnownLesions(
        [*one.lesion_ids, *other.lesion_ids],
        [*one.patient_ids, *other.patient_ids],
        [*one.series_ids, *other.series_ids],
        np.concatenate([one.slice_indices, other.slice_indices]),
        np.concatenate([one.points_px, other.points_px]),
        np.concatenate([one.first_centers, other.first_centers]),
    )


def record(source, target, source_points=CROSS, target_points=CROSS):
    return {
        "source recist slice": f"000001_{source:02d}_01/{10 + source:03d}.png",
        "source recist coordinate": list(source_points),
        "target recist slice": f"000001_{target:02d}_01/{10 + target:03d}.png",
        "target recist coordinate": list(target_points),
        "source spacing": [0.7, 0.7, 5.0],
    }


@pytest.fixture
def truth(tmp_path):
    def write(content):
        path = tmp_path / "truth"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def test_the_published_pairs_give_the_known_grouping(official_test_rows):
    with official_test_rows.open(newline="") as source:
        rows = list(csv.DictReader(source))
    points = [[float(value) for value in row["Measurement_coordinates"].split(",")] for row in rows]
    patients = np.array([int(row["Patient_index"]) for row in rows])
    known = KnownLesions(
        [f"dl-{number}" for number in range(1, len(rows) + 1)],
        [f"dl-{patient:06d}" for patient in patients],
        ["dl-" + row["File_name"].rsplit("_", 1)[0] for row in rows],
        np.array([int(row["Key_slice_index"]) for row in rows]),
        np.array(points),
        np.ones(len(rows)),
    )

    read = read_truth(official_test_rows.with_name("tracking_pairs_test.json"), known)

    assert (read.summary.kind, read.summary.lesions, read.summary.groups) == ("tracking pairs", 760, 280)
    assert (read.summary.mentions, read.summary.unresolved, read.summary.across_patients) == (1920, 0, 0)
    assert np.unique(patients[read.groups >= 0]).size == 105
    scores = pair_scores(patients, read.groups, read.groups)
    assert (scores.pairs, scores.positives, scores.tp, scores.fp) == (4919, 879, 879, 0)
    with pytest.raises(UsageError, match="none of the 1812 lesions"):
        read_truth(official_test_rows.with_name("tracking_pairs_val.json"), known)


def test_tracking_pairs_are_joined_through_lesions_that_are_not_there(truth):
    pairs = [record(1, 2), record(2, 9), record(9, 4), record(5, 6)]

    read = read_truth(truth(pairs), known_lesions())

    assert read.groups.tolist() == [0, 0, -1, 0, 1, 1]
    assert (read.summary.mentions, read.summary.unresolved) == (8, 2)
    assert read.summary.unresolved_examples == ("000001_09_01/019 at 261.2,213.2",)


def test_the_nearest_measurement_within_two_pixels_is_meant(truth):
    lesions = both(known_lesions(), known_lesions())
    # The second lesion of each slice lies 1.5 px to the right of the first.
    lesions.points_px[6:, 0::2] += 1.5
    near_first, near_second, far = (np.array(CROSS) + np.tile([shift, 0], 4) for shift in (0.5, 1.2, 3.6))

    def ends(points):
        return read_truth(truth([record(1, 2, points, points), record(3, 4)]), lesions)

    assert np.flatnonzero(ends(near_first).groups >= 0).tolist() == [0, 1, 2, 3]
    assert np.flatnonzero(ends(near_second).groups >= 0).tolist() == [2, 3, 6, 7]
    assert ends(far).summary.unresolved == 2


def test_a_lesion_without_its_short_axis_is_not_taken_for_another(truth):
    lesions = known_lesions()
    lesions.points_px[0, 4:] = np.nan

    read = read_truth(truth([record(1, 2), record(2, 3)]), lesions)

    assert read.groups.tolist() == [-1, 0, 0, -1, -1, -1]
    assert read.summary.unresolved == 1


def test_coordinates_are_compared_whatever_the_first_pixel_is_called(truth):
    lesions = known_lesions()
    half_based = KnownLesions(
        lesions.lesion_ids,
        lesions.patient_ids,
        lesions.series_ids,
        lesions.slice_indices,
        lesions.points_px + 2,
        lesions.first_centers + 2,
    )

    assert read_truth(truth([record(1, 2)]), half_based).groups.tolist() == [0, 0, -1, -1, -1, -1]


def test_two_namespaces_that_both_fit_need_a_choice(truth):
    lesions = both(known_lesions(), known_lesions(namespace="ph"))
    path = truth([record(1, 2)])

    with pytest.raises(UsageError, match="several namespaces: dl, ph"):
        read_truth(path, lesions)
    assert np.flatnonzero(read_truth(path, lesions, namespace="ph").groups == 0).tolist() == [6, 7]
    with pytest.raises(UsageError, match="none of the 2 lesions"):
        read_truth(path, lesions, namespace="other")


def test_another_namespace_beside_it_does_not_disturb(truth):
    lesions = both(known_lesions(namespace="dl"), known_lesions(namespace="pacs"))
    lesions.slice_indices[6:] += 100

    assert read_truth(truth([record(1, 2)]), lesions).summary.lesions == 2


@pytest.mark.parametrize("header", ["", "lesion_id,lesion_id\n", "lesion_id,other_lesion_id\n", "\ufeff"])
def test_pairs_of_names_are_joined(truth, header):
    read = read_truth(truth(f"{header}dl-1,dl-3\n\ndl-3, dl-4\r\ndl-5,dl-77\n"), known_lesions())

    assert read.summary.kind == "pairs"
    assert read.groups.tolist() == [0, -1, 0, 0, 1, -1]
    assert (read.summary.mentions, read.summary.unresolved_examples) == (6, ("dl-77",))


def test_pairs_across_patients_are_counted_and_not_used(truth):
    lesions = known_lesions(patients=["a", "a", "a", "b", "b", "b"])

    read = read_truth(truth("dl-1,dl-2\ndl-2,dl-4\ndl-4,dl-5\n"), lesions)

    assert read.groups.tolist() == [0, 0, -1, 1, 1, -1]
    assert read.summary.across_patients == 1


def test_random_pairs_give_the_components_of_their_graph(truth):
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    generator = np.random.default_rng(0)
    for _ in range(50):
        pairs = generator.integers(0, 20, (generator.integers(1, 25), 2))
        read = read_truth(truth("".join(f"dl-{a + 1},dl-{b + 1}\n" for a, b in pairs)), known_lesions(20))

        graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(20, 20))
        parts = connected_components(graph, directed=False)[1]
        named = np.unique(pairs)
        assert np.flatnonzero(read.groups >= 0).tolist() == named.tolist()
        same = parts[named, None] == parts[named]
        assert ((read.groups[named, None] == read.groups[named]) == same).all()


def test_groups_are_read_and_count_within_their_patient(truth):
    lesions = known_lesions(patients=["a", "a", "a", "b", "b", "b"])

    read = read_truth(truth("lesion_id,group\ndl-1,x\ndl-3,x\ndl-2,y\ndl-5,x\ndl-8,x\n"), lesions)

    assert read.summary.kind == "groups"
    assert read.groups.tolist() == [0, 1, 0, -1, 2, -1]
    assert (read.summary.mentions, read.summary.unresolved, read.summary.groups) == (5, 1, 3)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """A small phantom's folder, and its lesions as a store holds them."""
    from etl.phantom.release import ReleaseSettings, write_release

    folder = tmp_path_factory.mktemp("phantom") / "release"
    settings = ReleaseSettings(patients=3, seed=2, image_size=64, max_slices_per_series=4)
    write_release(folder, settings, workers=1)
    with Path(folder, "DL_info.csv").open(newline="") as source:
        rows = list(csv.DictReader(source))
    series = [row["File_name"].rsplit("_", 1)[0] for row in rows]
    known = KnownLesions(
        [f"ph-{number}" for number in range(1, len(rows) + 1)],
        [f"ph-{name[:6]}" for name in series],
        [f"ph-{name}" for name in series],
        np.array([int(row["Key_slice_index"]) for row in rows]),
        np.full((len(rows), 8), np.nan),
        np.ones(len(rows)),
    )
    return folder, known


def test_the_truth_of_a_phantom_gives_its_lesions_through_the_studies(phantom):
    folder, known = phantom

    read = read_truth(folder / "truth.csv", known)

    lesions = [line["lesion_id"] for line in csv.DictReader((folder / "truth.csv").read_text().splitlines())]
    assert (read.summary.kind, read.summary.unresolved) == ("phantom truth", 0)
    assert read.summary.groups == len(set(lesions)) < len(lesions)
    assert ((read.groups[:, None] == read.groups) == (np.array(lesions)[:, None] == np.array(lesions))).all()


def test_the_truth_of_another_phantom_is_not_mistaken_for_its_own(phantom):
    folder, known = phantom
    moved = KnownLesions(
        known.lesion_ids,
        known.patient_ids,
        known.series_ids,
        np.where(np.arange(len(known.lesion_ids)) == 0, known.slice_indices, known.slice_indices + 1),
        known.points_px,
        known.first_centers,
    )

    summary = read_truth(folder / "truth.csv", moved).summary

    assert summary.lesions == 1
    assert summary.unresolved == len(known.lesion_ids) - 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "no truth that can be read"),
        ("\n \n", "no truth that can be read"),
        ("a,b\n1,2\n", "no truth that can be read"),
        ("dl-1\n", "no truth that can be read"),
        ("patient,group\n1,2\n", "no truth that can be read"),
        ("dl-1,dl-2\ndl-3\n", "line 2 has 1 cells, the first line 2"),
        ('dl-1,"dl-2\n', "line 1"),
        ("lesion_id,group\ndl-1,\n", "dl-1 has no group"),
        ("lesion_id,group\ndl-1,a\ndl-1,b\n", "dl-1 is in two groups"),
        ("lesion_id,group\n", "none of the 0 lesions"),
        ("dl-91,dl-92\n", "none of the 2 lesions"),
        (b"\xff\xfe\x00d", "not UTF-8"),
        (b"\x89PNG\r\n\x1a\n", "not UTF-8"),
        ("[", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1" + "0" * 5000 + "]", "not JSON"),
        ("[]", "not a list of pairs"),
        ("{}", "not a list of pairs"),
        ([1], "record 1 is not an object"),
        ([record(1, 2), {}], "record 2 names no source slice"),
        ([record(1, 2) | {"target recist slice": 7}], "record 1 names no target slice"),
        ([record(1, 2) | {"target recist slice": "../../etc/passwd"}], "record 1 names no target slice"),
        ([record(1, 2, CROSS[:7])], "record 1 has no eight source coordinates"),
        ([record(1, 2, CROSS, (*CROSS[:7], "9"))], "record 1 has no eight target coordinates"),
        ([record(1, 2, (True,) * 8)], "record 1 has no eight source coordinates"),
        ([record(1, 2, (float("nan"),) * 8)], "record 1 has no eight source coordinates"),
        ([record(1, 2, (float("inf"),) * 8)], "record 1 has no eight source coordinates"),
    ],
)
def test_what_is_no_truth_is_one_sentence(truth, content, sentence):
    with pytest.raises(UsageError) as caught:
        read_truth(truth(content), known_lesions())

    assert sentence in caught.value.sentence
    assert "\n" not in caught.value.sentence


def test_files_that_are_missing_or_too_large_are_refused(truth, tmp_path, monkeypatch):
    monkeypatch.setattr(truth_pairs, "MAX_FILE_BYTES", 12)

    with pytest.raises(UsageError, match="no such file"):
        read_truth(tmp_path / "nowhere.json", known_lesions())
    with pytest.raises(UsageError, match="no such file"):
        read_truth(tmp_path, known_lesions())
    with pytest.raises(UsageError, match="larger than"):
        read_truth(truth("dl-1,dl-2\ndl-3,dl-4\n"), known_lesions())
