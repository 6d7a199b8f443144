"""What must hold of the evaluator whatever is compared, where it ends, and the published counts."""

import csv
import dataclasses
import subprocess
import sys
import time

import numpy as np
import pytest
from scipy.interpolate import interp1d

from lesionary.errors import UsageError
from trainers.detector.evaluate import (
    PUBLISHED,
    Detections,
    EvaluationSettings,
    Protocol,
    Resampling,
    SliceBoxes,
    Truth,
    average_precision,
    evaluate,
    froc,
    top_one,
)
from trainers.detector.protocols import Dimensions, NoisyRows, SecondHits
from trainers.detector.strata import strata_of

BOX = [10.0, 10.0, 20.0, 20.0]
FAR = [100.0, 100.0, 110.0, 110.0]


def truth_of(*boxes, images=None, patients=None, **more):
    images = list(range(len(boxes))) if images is None else images
    patients = list(range(max(images, default=-1) + 1)) if patients is None else patients
    return Truth(patients=np.array(patients), images=np.array(images), boxes=np.array(boxes), **more)


def found_of(*rows, **more):
    """Detections out of (image, box, score)."""
    images, boxes, scores = zip(*rows, strict=True) if rows else ((), (), ())
    return Detections(images=np.array(images), boxes=np.array(boxes), scores=np.array(scores), **more)


def drawn(seed=0, images=60, boxes=900):
    """A crowd of detections, some near lesions, all scores different."""
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 80, (images + 20, 2))
    truth = Truth(
        patients=np.arange(images) // 4,
        images=np.concatenate([np.arange(images), random.integers(0, images, 20)]),
        boxes=np.hstack([corners, corners + random.uniform(8, 30, (images + 20, 2))]),
        types=random.integers(0, 3, images + 20),
        long_mm=random.uniform(3, 50, images + 20),
    )
    near = random.integers(0, images + 20, boxes)
    shifted = truth.boxes[near] + random.normal(0, 4, (boxes, 4))
    shifted[:, 2:] = np.maximum(shifted[:, 2:], shifted[:, :2])
    return truth, Detections(images=truth.images[near], boxes=shifted, scores=random.permutation(boxes) / boxes)


def test_a_found_a_missed_and_a_wrong_one():
    truth = truth_of(BOX, BOX)
    found = found_of((0, BOX, 0.9), (1, FAR, 0.8), (0, BOX, 0.7))

    scores = evaluate(truth, found)

    assert [one.value for one in scores.froc.all.sensitivities] == [0.5] * 6
    assert (scores.froc.hits, scores.froc.false_positives, scores.froc.second_hits) == (1, 1, 1)
    assert scores.top_one.all.accuracy.value == 0.5
    assert scores.average_precision.all.area_at_threshold == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_more_false_positives_never_find_less(seed):
    truth, found = drawn(seed)
    rates = tuple(np.linspace(0.05, 18, 60).tolist())
    for protocol in PUBLISHED.values():
        if protocol.dimensions is Dimensions.SLICE:
            scores = froc(truth, found, dataclasses.replace(protocol, rates=rates))

            assert (np.diff([one.value for one in scores.all.sensitivities]) >= 0).all()
            assert (np.diff(scores.curve.sensitivities) >= 0).all()
            assert (np.diff(scores.curve.false_positives_per_image) >= 0).all()
            assert (np.diff(top_one(truth, found, protocol).sweep) <= 0).all()


def test_every_order_of_the_detections_gives_the_same_figures():
    truth, found = drawn()
    # Many equal scores.
    found = dataclasses.replace(found, scores=np.round(found.scores, 1))
    shuffled = found.taken(np.random.default_rng(1).permutation(found.count))
    protocol = Protocol(most_boxes=1000)

    assert froc(truth, found, protocol).all == froc(truth, shuffled, protocol).all
    assert evaluate(truth, found).froc.all == evaluate(truth, found).froc.all


def test_types_share_the_false_positives_and_add_up():
    truth, found = drawn()
    strata = strata_of(truth, ("a", "b", "c"))

    scores = froc(truth, found, strata=strata)

    for rate in range(6):
        parts = [one for one in scores.strata if one.group == "type"]
        hits = sum(one.sensitivities[rate].value * one.lesions for one in parts)
        assert hits == pytest.approx(scores.all.sensitivities[rate].value * scores.all.lesions)
    assert {one.group for one in scores.strata} == {"all", "type", "size"}


def test_a_region_counts_neither_way():
    truth, found = drawn()
    clean = froc(truth, found)
    with_region = truth_of(
        *truth.boxes, FAR, images=[*truth.images, 0], patients=truth.patients,
        ignore=np.arange(len(truth.images) + 1) == len(truth.images),
    )  # fmt: skip
    inside = found_of(*zip(found.images, found.boxes, found.scores, strict=True), (0, [101, 101, 104, 104], 2.0))

    scores = froc(with_region, inside)

    assert scores.ignored == 1
    assert scores.curve.sensitivities[-1] == clean.curve.sensitivities[-1]
    assert [one.value for one in scores.all.sensitivities] == [one.value for one in clean.all.sensitivities]


def test_a_surest_box_in_a_region_leaves_its_place_to_the_next():
    truth = truth_of(BOX, FAR, images=[0, 0], ignore=np.array([False, True]))
    found = found_of((0, FAR, 0.9), (0, BOX, 0.8))

    assert top_one(truth, found).all.accuracy.value == 1.0
    assert top_one(truth.lesions(~truth.ignore), found).all.accuracy.value == 0.0


def test_what_scipy_reads_off_3dces_and_mulans_curve():
    truth, found = drawn(images=40, boxes=600)
    rates = (0.3, 0.725, 1.0, 2.0, 3.3, 4.0)
    points = froc(truth, found, Protocol(plus_one=True)).curve
    # As their code has it: a point for every detection, none before the first.
    x, y = points.false_positives_per_image[1:], points.sensitivities[1:]

    extrapolated = froc(truth, found, dataclasses.replace(PUBLISHED["3dce"], rates=rates))
    clamped = froc(truth, found, dataclasses.replace(PUBLISHED["mulan"], rates=(*rates, 50.0)))

    theirs = interp1d(x, y, fill_value="extrapolate")(rates)
    assert [one.value for one in extrapolated.all.sensitivities] == pytest.approx(theirs, abs=1e-12)
    theirs = [*interp1d(x, y)(rates), y[-1]]
    assert [one.value for one in clamped.all.sensitivities] == pytest.approx(theirs, abs=1e-12)


def test_the_last_step_goes_on_or_stays():
    # Equal scores: half a step up with every false positive.
    truth = truth_of(BOX, BOX, BOX, BOX)
    found = found_of((0, BOX, 0.5), (1, FAR, 0.5))
    rates = (0.125, 0.25, 0.5, 8.0)

    clamped = froc(truth, found, Protocol(rates=rates))
    extrapolated = froc(truth, found, dataclasses.replace(PUBLISHED["3dce"], rates=rates))

    assert [one.value for one in clamped.all.sensitivities] == [0.125, 0.25, 0.25, 0.25]
    assert [one.value for one in extrapolated.all.sensitivities] == [0.125, 0.25, 0.5, 1.0]


def test_one_pixel_more_can_make_a_hit():
    truth, found = truth_of([0, 0, 2, 2]), found_of((0, [0, 0, 2, 0.5], 1.0))

    assert froc(truth, found, PUBLISHED["mp3d"]).hits == 0
    assert froc(truth, found, PUBLISHED["mulan"]).hits == 1


def test_overlap_of_exactly_one_half_is_a_hit_but_not_for_top_1():
    truth, found = truth_of([0, 0, 10, 10]), found_of((0, [0, 0, 10, 5], 1.0))

    assert froc(truth, found).hits == 1
    assert top_one(truth, found).all.accuracy.value == 0.0


def test_a_tracklet_counts_by_its_box_on_the_key_slice():
    truth = truth_of(BOX, key_slices=np.array([7]), slices=np.array([[5, 9]]))
    on_slices = SliceBoxes(owners=np.array([0, 0]), slices=np.array([6, 7]), boxes=np.array([FAR, BOX]))
    found = found_of((0, FAR, 0.9), slices=np.array([[6, 7]]), slice_boxes=on_slices)
    elsewhere = dataclasses.replace(found, slice_boxes=dataclasses.replace(on_slices, slices=np.array([5, 6])))

    assert froc(truth, found, PUBLISHED["lesion-harvester"]).hits == 1
    assert froc(truth, elsewhere, PUBLISHED["lesion-harvester"]).hits == 0
    assert froc(truth, found, PUBLISHED["lens"]).hits == 0


def test_nothing_found_nothing_there_and_all_in_doubt():
    nothing = found_of()
    missed = evaluate(truth_of(BOX), nothing, EvaluationSettings(resampling=Resampling(10)))
    assert missed.froc.all.mean.value == 0.0
    assert missed.top_one.without_box == 1
    assert missed.average_precision.all.coco == 0.0

    empty = evaluate(truth_of(patients=[0, 1]), found_of((1, BOX, 0.5)), EvaluationSettings(resampling=Resampling(10)))
    assert empty.froc.all.mean.value is None
    assert empty.froc.false_positives == 1
    assert empty.top_one.all.accuracy.value is None
    assert empty.average_precision.mean_coco is None

    noisy = evaluate(truth_of(BOX, noisy=np.array([True])), found_of((0, BOX, 0.5)))
    assert (noisy.lesions, noisy.images_dropped, noisy.lesions_dropped) == (0, 1, 1)
    assert noisy.detections_left_out == 1
    assert noisy.froc.all.mean.value is None

    no_image = evaluate(truth_of(), nothing)
    assert no_image.froc.images == 0


def test_doubted_lesions_go_stay_or_count_neither_way():
    truth = truth_of(BOX, FAR, BOX, images=[0, 0, 1], noisy=np.array([False, True, True]))
    found = found_of((0, FAR, 0.9), (1, BOX, 0.8))

    by_policy = {
        policy: evaluate(truth, found, EvaluationSettings(protocol=Protocol(noisy=policy))) for policy in NoisyRows
    }

    assert {policy: (one.froc.images, one.lesions, one.froc.false_positives) for policy, one in by_policy.items()} == {
        NoisyRows.DROP: (1, 1, 1),
        NoisyRows.KEEP: (2, 3, 0),
        NoisyRows.REGION: (2, 1, 0),
    }


def test_a_second_hit_is_wrong_where_the_protocol_says_so():
    truth, found = truth_of(BOX), found_of((0, BOX, 0.9), (0, BOX, 0.8))

    assert froc(truth, found).false_positives == 0
    assert froc(truth, found, Protocol(second_hits=SecondHits.FALSE_POSITIVE)).false_positives == 1
    assert average_precision(truth, found).curves[0].precisions.tolist() == [1.0, 0.5]


def test_intervals_hold_the_figure_and_repeat():
    truth, found = drawn()
    settings = EvaluationSettings(resampling=Resampling(200, seed=4))

    scores, again = evaluate(truth, found, settings), evaluate(truth, found, settings)

    for one in (scores.froc.all.mean, scores.top_one.all.accuracy, scores.average_precision.all.at_threshold):
        assert one.low < one.value < one.high
    assert scores.froc.strata == again.froc.strata
    other = evaluate(truth, found, EvaluationSettings(resampling=Resampling(200, seed=5)))
    assert other.froc.all.mean != scores.froc.all.mean


def test_what_cannot_be_compared_is_one_clear_line(subtests):
    truth = truth_of(BOX)
    for name, make, sentence in (
        ("nan", lambda: found_of((0, BOX, np.nan)), "the score of detection 0 is no finite number"),
        ("turned", lambda: found_of((0, [5, 0, 1, 9], 0.5)), "detections: box 0 is none"),
        ("infinite", lambda: truth_of([0, 0, np.inf, 1]), "lesions: box 0 is none"),
        ("image", lambda: froc(truth, found_of((1, BOX, 0.5))), "an image of the detections is not one of the 1"),
        ("lesion", lambda: truth_of(BOX, images=[3], patients=[0]), "an image of the lesions is not one of the 1"),
        ("shape", lambda: truth_of(BOX, types=np.array([1, 2])), "types has the shape (2,), (1,) is needed"),
        ("slices", lambda: found_of((0, BOX, 1.0), slices=np.array([[3, 2]])), "a last slice comes before the first"),
        ("keys", lambda: froc(truth, found_of((0, BOX, 1)), PUBLISHED["lesion-harvester"]), "no key slices"),
        ("extents", lambda: froc(truth, found_of((0, BOX, 1)), PUBLISHED["lens"]), "do not say which slices"),
        ("threshold", lambda: Protocol(threshold=0.0), "an overlap's threshold lies above 0"),
        ("rates", lambda: Protocol(rates=(2.0, 1.0)), "rates of false positives are positive and ascend"),
        ("boxes", lambda: Protocol(most_boxes=0), "at least one box per image"),
        ("score", lambda: Protocol(least_score=np.nan), "a score is a finite number"),
        ("sizes", lambda: strata_of(truth, size_edges_mm=(3, 2)), "edges of sizes are positive and ascend"),
    ):
        with subtests.test(name):
            with pytest.raises(UsageError) as caught:
                make()
            assert sentence in str(caught.value)
            assert "\n" not in str(caught.value)


def test_the_official_split_has_the_published_counts(official_test_rows):
    with official_test_rows.open() as file:
        rows = list(csv.DictReader(file))
    names = sorted({row["File_name"] for row in rows})
    images = {name: at for at, name in enumerate(names)}
    boxes = np.array([[float(part) for part in row["Bounding_boxes"].split(",")] for row in rows])
    truth = Truth(
        patients=np.array([int(name.split("_")[0]) for name in names]),
        images=np.array([images[row["File_name"]] for row in rows]),
        boxes=boxes,
        types=np.array([int(row["Coarse_lesion_type"]) - 1 for row in rows]),
        noisy=np.array([row["Possibly_noisy"] == "1" for row in rows]),
    )
    perfect = Detections(images=truth.images, boxes=boxes, scores=np.ones(len(rows)))

    scores = evaluate(truth, perfect, EvaluationSettings(protocol=PUBLISHED["3dce"], type_names=tuple("12345678")))

    assert (scores.froc.images, scores.lesions, scores.froc.patients) == (4817, 4912, 663)
    assert (scores.images_dropped, scores.lesions_dropped) == (14, 15)
    assert scores.froc.all.mean.value == 1.0
    kept = evaluate(truth, perfect, EvaluationSettings(protocol=PUBLISHED["paper-2017"]))
    assert (kept.froc.images, kept.lesions, kept.froc.patients) == (4831, 4927, 665)


def test_fifty_thousand_boxes_take_less_than_three_seconds():
    random = np.random.default_rng(0)
    corners = random.uniform(0, 450, (50_000, 2))
    found = Detections(
        images=random.integers(0, 5_000, 50_000), boxes=np.hstack([corners, corners + 30]), scores=random.random(50_000)
    )
    places = random.uniform(0, 450, (5_000, 2))
    truth = Truth(patients=np.arange(5_000) // 7, images=np.arange(5_000), boxes=np.hstack([places, places + 30]))
    started = time.process_time()

    scores = evaluate(truth, found)

    assert scores.froc.images == 5_000
    assert time.process_time() - started < 3


def test_the_evaluator_needs_numpy_alone():
    heavy = ("torch", "ray", "pandas", "scipy", "pyarrow", "duckdb")
    program = (
        "import sys, trainers.detector.evaluate, trainers.detector.detection_files\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
