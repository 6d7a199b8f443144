"""RECIST 1.1: two hundred courses with answers worked out by hand, and what surrounds the verdicts."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lesionary.errors import UsageError
from store.response import Measurement, Response, Rules, TimePoint, assess

COURSES = Path(__file__).with_name("recist_courses.txt")
DAYS_BETWEEN = 56


@dataclass(frozen=True)
class Expected:
    targets: list[int]
    others: dict[int, str]
    sums: list[float | None]
    verdicts: list[tuple[str, tuple[int, ...]]]
    best: str | None


def read_courses():
    for line in COURSES.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            name, settings, lesions, targets, sums, verdicts, best, why = (cell.strip() for cell in line.split("|"))
            assert why, name
            chosen, _, others = targets.partition("/")
            words = others.split()
            expected = Expected(
                targets=[int(word) for word in chosen.split() if word != "none"],
                others=dict(zip(map(int, words[::2]), words[1::2], strict=True)),
                sums=[None if word == "-" else float(word) for word in sums.split()],
                verdicts=[read_verdict(word) for word in verdicts.split() if word != "."],
                best=None if best == "none" else best,
            )
            yield name, read_settings(settings), lesions, expected


def read_verdict(word):
    verdict, _, groups = word.partition("+")
    return verdict, tuple(int(group) for group in groups.split(",") if group)


def read_settings(text):
    settings = dict(word.split("=") for word in text.split() if word != ".")
    kinds = {"baseline": int, "max_targets": int, "max_per_organ": int, "absent": str, "new_lesions": str}
    return Rules(**{name: kinds.get(name, float)(value) for name, value in settings.items()})


def read_lesions(text):
    """Measurements and studies of a cell such as `1 liver 30 45+2; 2 node 20 -`."""
    measurements, lengths = [], set()
    for lesion in text.split(";"):
        group, place, *sizes = lesion.split()
        organ, _, interval = place.partition("@")
        lengths.add(len(sizes))
        for time, size in enumerate(sizes, start=1):
            if size != "-":
                measurements.append(read_mark(int(group), time, organ, interval or "1", size))
    (studies,) = lengths
    return measurements, [TimePoint(time, f"study-{time}", time * DAYS_BETWEEN) for time in range(1, studies + 1)]


def read_mark(group, time, organ, interval, size):
    size, *merged = size.split("+")
    size, _, whole = size.partition("<")
    node = organ.split("/")[0] == "node"
    if size == "?":
        size = "x"
    elif "x" not in size:
        size = f"x{size}" if node else f"{size}x"
    long_mm, short_mm = (float(axis) if axis else None for axis in size.split("x"))
    return Measurement(
        lesion_ids=(f"dl-{group}-{time}",),
        group=group,
        time=time,
        long_mm=long_mm,
        short_mm=short_mm,
        organ=None if organ == "?" else organ,
        is_node=node,
        slice_interval_mm=None if interval == "?" else float(interval),
        split_from=int(whole) if whole else None,
        merged_groups=tuple(map(int, merged)),
    )


def course_of(lesions, rules=Rules()):  # noqa: B008 (frozen)
    return assess(*read_lesions(lesions), rules)


ALL = list(read_courses())


def test_there_are_two_hundred_distinct_courses():
    assert len({name for name, *_ in ALL}) == len(ALL)
    assert len({(rules, lesions) for _, rules, lesions, _ in ALL}) == len(ALL)
    assert len(ALL) >= 200


@pytest.mark.parametrize(("rules", "lesions", "expected"), [case[1:] for case in ALL], ids=[case[0] for case in ALL])
def test_course_has_the_answer_worked_out_by_hand(rules, lesions, expected):
    course = course_of(lesions, rules)

    assert [target.group for target in course.targets] == expected.targets
    assert {lesion.group: lesion.reason for lesion in course.not_chosen} == expected.others
    assert [one.sum_mm for one in course.assessments] == [
        None if size is None else pytest.approx(size, rel=1e-12) for size in expected.sums
    ]
    assert [(one.response, one.new_groups) for one in course.assessments[1:]] == expected.verdicts
    assert course.best_response == expected.best


@pytest.mark.parametrize(("rules", "lesions", "expected"), [case[1:] for case in ALL], ids=[case[0] for case in ALL])
def test_figures_of_a_course_agree_with_each_other(rules, lesions, expected):
    course = course_of(lesions, rules)
    first, *later = course.assessments
    first_pd = next((one for one in later if one.response is Response.PD), None)

    assert first.response is Response.BASELINE
    assert first.time == course.baseline_time
    assert (course.progression_time, course.progression_study_day) == (
        (first_pd.time, first_pd.time * DAYS_BETWEEN) if first_pd else (None, None)
    )
    complete = [first.sum_mm]
    for one in later:
        known = [size for size in one.target_sizes_mm if size is not None]
        assert len(one.target_sizes_mm) == len(course.targets)
        assert one.missing_groups == tuple(
            target.group for target, size in zip(course.targets, one.target_sizes_mm, strict=True) if size is None
        )
        if one.sum_mm is None:
            assert one.change_from_baseline_percent is one.change_from_nadir_percent is one.change_from_nadir_mm is None
        else:
            assert one.sum_mm == one.partial_sum_mm == pytest.approx(sum(known))
            assert one.nadir_mm == min(complete)
            assert one.change_from_nadir_mm == pytest.approx(one.sum_mm - one.nadir_mm)
            assert one.sum_mm == pytest.approx(first.sum_mm * (1 + one.change_from_baseline_percent / 100))
            complete.append(one.sum_mm)
        assert one.reason
        assert not one.reason.endswith(".")


@pytest.mark.parametrize(
    ("lesions", "reason"),
    [
        ("1 liver 100 70", "sum 30 % below the baseline of 100 mm"),
        ("1 liver 100 120", "sum 20 % above the nadir of 100 mm (20 mm)"),
        ("1 liver 100 50 73", "sum 46 % above the nadir of 50 mm (23 mm)"),
        ("1 liver 100 105", "sum 5 % above the baseline of 100 mm"),
        ("1 liver 100 100", "sum equal to the baseline of 100 mm"),
        ("1 lung 20 12 16", "sum 20 % below the baseline of 20 mm, 33.33 % above the nadir of 12 mm (4 mm)"),
        ("1 liver 100 0", "every target is gone"),
        ("1 node 20 8", "every target node is normal (their sum is 8 mm)"),
        ("1 liver 50 0; 2 node 20 8", "every target is gone and every target node is normal (their sum is 8 mm)"),
        ("1 liver 50 0 3", "disease is back after all targets were gone: g1"),
        ("1 liver 50 -; 2 lung 50 50", "1 of 2 targets without a size: g1"),
        ("1 liver 50 -; 2 lung 50 130", "sum of the measured targets alone 30 % above the nadir of 100 mm (30 mm)"),
        ("1 liver 50 50; 2 lung - 9; 3 lung - 9", "new lesion: g2, g3; sum equal to the baseline of 50 mm"),
        ("1 liver 8 8", "no measurable lesion at the baseline, so there is no target to follow"),
    ],
)
def test_reason_gives_the_figures(lesions, reason):
    assert course_of(lesions).assessments[-1].reason == reason


def test_new_lesion_that_stays_is_the_reason_of_later_progression():
    last = course_of("1 liver 50 50 50; 2 lung - 9 9").assessments[-1]

    assert (last.new_groups, last.earlier_new_groups) == ((), (2,))
    assert last.reason.startswith("new since the baseline and still marked: g2")


def test_order_of_measurements_and_studies_does_not_matter():
    for _, rules, lesions, _ in ALL:
        measurements, studies = read_lesions(lesions)

        assert assess(measurements[::-1], studies[::-1], rules) == assess(measurements, studies, rules)


def test_scaling_every_length_scales_a_course_when_thresholds_are_scaled():
    """Percentages have no unit: ten times everything but the 5 mm leaves verdicts that do not hang on them."""
    large = [case for case in ALL if case[0].startswith(("shrink", "both-200", "grow-100", "grow-200", "nadir-80"))]
    assert len(large) > 30
    for _, rules, lesions, expected in large:
        measurements, studies = read_lesions(lesions)
        grown = [replace(one, long_mm=None if one.long_mm is None else 10 * one.long_mm) for one in measurements]

        assert [one.response for one in assess(grown, studies, rules).assessments[1:]] == [
            verdict for verdict, _ in expected.verdicts
        ]


def test_studies_without_a_mark_and_without_a_day_are_assessed():
    measurements, studies = read_lesions("1 liver 50 60 60")
    course = assess(measurements[:1], [replace(study, study_day=None) for study in studies])

    assert [one.response for one in course.assessments] == ["baseline", "NE", "NE"]
    assert [one.study_day for one in course.assessments] == [None, None, None]


@pytest.mark.parametrize("size", [float("nan"), float("inf"), -1.0])
def test_impossible_lengths_count_as_not_measured(size):
    measurements, studies = read_lesions("1 liver 50 50")
    course = assess([measurements[0], replace(measurements[1], long_mm=size)], studies)

    assert course.assessments[-1].response is Response.NE


@pytest.mark.parametrize(
    ("lesions", "rules", "says"),
    [
        ("1 liver 50 50", Rules(), "Non-target disease is not assessed"),
        ("1 liver 50 50; 2 liver 9 9; 3 node 9 9", Rules(), "Non-target disease (1 lesion of the baseline)"),
        ("1 liver 50 50", Rules(), "clinical context is unknown"),
        ("1 liver 50 50", Rules(), "may still be there: marks in a PACS are not exhaustive"),
        ("1 liver 50 50", Rules(absent="gone"), "was taken as gone, as the settings say"),
        ("1 liver 50 50", Rules(), "Whether a mark is a tumour at all"),
        ("1 liver 50 50", Rules(), "Responses are unconfirmed"),
        ("1 liver 50 50", Rules(), "Lymph nodes are told by the codes of their marks"),
        ("1 liver 50 50", Rules(new_lesions="report"), "New lesions are listed and do not count"),
        ("1 ? 50 50; 2 ? 20 20; 3 liver 10 10", Rules(), "The organ of 2 targets is unknown"),
        ("1 bone 50 50; 2 bone 8 8", Rules(), "Targets in bone: 1. RECIST measures the soft tissue"),
        ("1 liver@? 50 50", Rules(), "The slice interval of 1 lesion is unknown"),
        ("1 liver 8 8", Rules(), "No lesion of the baseline is measurable"),
        ("1 liver - 50", Rules(), "Nothing is marked in the baseline study"),
        ("1 liver 50", Rules(), "no study after the baseline"),
        ("1 liver 50 50 50", Rules(baseline=3), "Studies before the baseline are not assessed: 2"),
        ("1 liver 50 50; 2 node - 30x", Rules(), "Lymph nodes without a short axis"),
    ],
)
def test_limits_say_what_cannot_be_known(lesions, rules, says):
    assert any(says in sentence for sentence in course_of(lesions, rules).limits)


def test_limits_are_silent_about_what_is_known():
    text = " ".join(course_of("1 liver 50 50; 2 node 20 20").limits)

    for words in ("organ of", "slice interval", "measurable", "before the baseline", "short axis", "Nothing is marked"):
        assert words not in text


def test_why_a_lesion_is_no_target_is_said_with_figures():
    course = course_of(
        "1 liver 9 9; 2 lung@8 15 15; 3 node 12 12; 4 node 9 9; 5 bone x9 9; 6 ? 30 30; 7 ? 20 20; 8 ? 11 11"
    )

    assert {lesion.group: lesion.explanation for lesion in course.not_chosen} == {
        1: "its longest diameter of 9 mm is below 10 mm",
        2: "15 mm are less than two slice intervals of 8 mm",
        3: "its short axis of 12 mm is below 15 mm",
        4: "a node of 9 mm is normal, below 10 mm",
        5: "its longest diameter was not measured",
        8: "2 targets of unknown organ are at least as large",
    }


@pytest.mark.parametrize(
    "settings",
    [
        {"max_targets": 0},
        {"max_per_organ": 0},
        {"min_long_mm": 0.0},
        {"min_long_mm": float("nan")},
        {"thick_slices_mm": -1.0},
        {"normal_node_short_mm": 16.0},
        {"absent": "maybe"},
        {"new_lesions": "ignore"},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(UsageError):
        Rules(**settings)


def test_baseline_must_be_a_study_of_the_patient():
    with pytest.raises(UsageError, match=r"no study 4 .*take one of 1, 2"):
        course_of("1 liver 50 50", Rules(baseline=4))
    with pytest.raises(UsageError, match="no study"):
        assess([], [])


def test_contradictory_input_is_an_error():
    measurements, studies = read_lesions("1 liver 50 50")

    with pytest.raises(ValueError, match="twice"):
        assess([*measurements, measurements[0]], studies)
    with pytest.raises(ValueError, match="no study"):
        assess(measurements, studies[:1])
    with pytest.raises(ValueError, match="same time"):
        assess(measurements, [*studies, studies[0]])
