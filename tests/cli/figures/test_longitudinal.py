"""The longitudinal figure: studies are columns, lesions rows, links run between the right tiles, words never meet."""

import numpy as np
import pytest
from tidy_sheets import assert_tidy

from cli.figures.longitudinal import STATE_SIGNS, draw_longitudinal, lay_out_longitudinal
from cli.figures.longitudinal_grid import MAX_GROUPS, MAX_STUDIES, Link, Sighting, StudyColumn, choose_cells


def studies(count, days=True):
    return [StudyColumn(number, 30.0 * number if days else None, 60.0) for number in range(1, count + 1)]


def seen(group, study, state="persistent", long_mm=None, name=None, confidence=None):
    size = 10.0 * group + study if long_mm is None else long_mm
    return Sighting(None, name or f"g{group}s{study}", study, group, size, size / 2, state, confidence, "liver")


def gone(group, study):
    return Sighting(None, None, study, group, None, None, "vanished")


def boxes(sheet):
    return {text.text: text.box_xyxy_px for text in sheet.texts}


def coloured(sheet, colour, box):
    """How many pixels of a colour lie within left, top, right, bottom."""
    left, top, right, bottom = (round(edge) for edge in box)
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    part = np.asarray(sheet.image)[top:bottom, left:right]
    return int((np.abs(part.astype(int) - wanted).max(axis=2) < 30).sum())


def between(sheet, one, other):
    """The strip from one named cell's tile to another's, at the tiles' height."""
    found = boxes(sheet)
    return found[one][0] + 168 + 4, found[one][1] - 130, found[other][0] - 4, found[one][1] - 100


def test_cells_stand_in_their_row_and_column():
    sheet = lay_out_longitudinal(studies(3), [seen(g, s) for g in (1, 2) for s in (1, 2, 3)], [], "A", "B")

    found = boxes(sheet)
    for group in (1, 2):
        assert len({found[f"g{group}s{study}"][1] for study in (1, 2, 3)}) == 1
    for study in (1, 2, 3):
        assert found[f"g1s{study}"][0] == found[f"g2s{study}"][0]
        header = found[f"study {study}"]
        assert found[f"g1s{study}"][0] < (header[0] + header[2]) / 2 < found[f"g1s{study}"][0] + 168
    assert found["g1s1"][0] < found["g1s2"][0] < found["g1s3"][0]
    assert found["lesion 1"][1] < found["g1s1"][1] < found["lesion 2"][1] < found["g2s1"][1]
    assert found["22.0 × 11.0 mm"][0] == found["g2s2"][0]
    assert_tidy(sheet)


@pytest.mark.parametrize(("columns", "rows"), [(1, 1), (1, 12), (3, 4), (24, 3), (9, 25)])
def test_crowded_and_sparse_figures_stay_tidy(columns, rows):
    shown = [
        seen(g, s, name=f"pacs-{g:08d}{s:08d}", confidence=0.5)
        for g in range(1, rows + 1)
        for s in range(1, columns + 1)
    ]
    sheet = lay_out_longitudinal(studies(columns), shown, [], "pacs-abcdefghijklmnop: a title", "matched by location@1")

    assert len([text for text in sheet.texts if text.text.startswith("pacs-0")]) == rows * columns
    assert_tidy(sheet)


def test_every_state_is_said_in_words_and_shown_in_the_legend():
    states = [state for state in STATE_SIGNS if state != "vanished"]
    sheet = lay_out_longitudinal(
        studies(2), [*(seen(group, 1, state) for group, state in enumerate(states, 1)), gone(1, 2)], [], "A"
    )

    said = [text.text for text in sheet.texts]
    assert all(said.count(state) == 2 for state in STATE_SIGNS)
    assert "not marked" in said
    assert_tidy(sheet)


def test_links_run_between_successive_sightings_only():
    shown = [seen(1, 1), seen(1, 3), seen(2, 1), seen(2, 2), seen(3, 2), seen(3, 3)]
    links = [Link("g1s1", "g1s3", 0.9), Link("g2s1", "g2s2", 0.7), Link("g3s2", "g3s3", 0.3)]
    sheet = lay_out_longitudinal(studies(3), shown, links, "A")

    blue = STATE_SIGNS["persistent"][1]
    solid = coloured(sheet, blue, between(sheet, "g2s1", "g2s2"))
    dotted = coloured(sheet, blue, between(sheet, "g3s2", "g3s3"))
    assert coloured(sheet, blue, between(sheet, "g1s1", "g1s3")) > 2 * solid > 2 * dotted > 0
    found = boxes(sheet)
    assert found["g2s1"][0] < found["0.70"][0] < found["g2s2"][0]
    assert found["g3s2"][0] < found["0.30"][0] < found["g3s3"][0]
    assert found["0.90"][3] < found["g1s1"][1]
    # Lesion 2 ends in study 2.
    right = found["g2s2"][0] + 172, found["g2s2"][1] - 130, found["g3s3"][0] - 4, found["g2s2"][1] - 30
    assert coloured(sheet, blue, right) == 0


def test_a_link_without_confidence_shows_that_of_its_later_end():
    sheet = lay_out_longitudinal(studies(2), [seen(1, 1), seen(1, 2, confidence=0.65)], [], "A")

    assert "0.65" in boxes(sheet)
    assert {"match, at least 0.6 sure"} == {text for text in boxes(sheet) if text.startswith("match")}


def test_merged_and_split_links_join_rows_and_their_numbers_do_not_meet():
    shown = [seen(1, 1), seen(1, 2, "merged"), seen(2, 1), seen(3, 1), seen(4, 2, "split"), seen(5, 1)]
    links = [
        Link("g2s1", "g1s2", 0.81, "merged"),
        Link("g3s1", "g1s2", 0.82, "merged"),
        Link("g5s1", "g1s2", 0.83, "merged"),
        Link("g1s1", "g4s2", 0.84, "split"),
        Link("g3s1", "g4s2", 0.85, "split"),
    ]
    sheet = lay_out_longitudinal(studies(2), shown, links, "A")

    assert {"0.81", "0.82", "0.83", "0.84", "0.85"} <= set(boxes(sheet))
    assert_tidy(sheet)
    found = boxes(sheet)
    gap = found["g1s1"][0] + 172, found["lesion 2"][1], found["g1s2"][0] - 4, found["g2s1"][1]
    for state in ("merged", "split"):
        assert coloured(sheet, STATE_SIGNS[state][1], gap) > 100


def test_numbers_of_links_that_cross_give_way_to_each_other():
    shown = [seen(group, study) for group in (1, 2) for study in (1, 2)] + [seen(3, 1), seen(4, 1)]
    links = [Link("g3s1", "g2s2", 0.81, "merged"), Link("g4s1", "g1s2", 0.82, "merged")]
    sheet = lay_out_longitudinal(studies(2), shown, links, "A")

    assert {"0.81", "0.82"} <= set(boxes(sheet))
    assert_tidy(sheet)


def test_a_link_over_several_studies_crosses_no_other_lesions_tile():
    """Merging runs along its own row first; splitting slants first and follows the new row."""
    shown = [seen(1, s) for s in (1, 2, 3)] + [seen(2, s) for s in (1, 2, 3)] + [seen(3, 1)]
    merged = lay_out_longitudinal(studies(3), shown, [Link("g3s1", "g1s3", 0.9, "merged")], "A")
    without = lay_out_longitudinal(studies(3), shown, [], "A")

    found = boxes(merged)
    first_gap = found["g1s1"][0] + 172, found["lesion 1"][1], found["g1s2"][0] - 4, found["g2s1"][1] + 20
    colour = STATE_SIGNS["merged"][1]
    assert coloured(merged, colour, first_gap) == coloured(without, colour, first_gap)
    last_gap = found["g1s2"][0] + 172, found["lesion 1"][1], found["g1s3"][0] - 4, found["g2s1"][1] + 20
    assert coloured(merged, colour, last_gap) > coloured(without, colour, last_gap) + 100


def test_links_to_what_is_not_drawn_are_left_out():
    shown = [seen(1, 1), seen(1, 2)]
    with_it = draw_longitudinal(studies(2), shown, [Link("g1s1", "elsewhere", 0.9, "merged")], "A")

    assert with_it.tobytes() == draw_longitudinal(studies(2), shown, [], "A").tobytes()


def test_of_several_marks_the_largest_is_shown_and_the_others_counted():
    shown = [
        seen(1, 1, long_mm=12, name="small"),
        seen(1, 1, long_mm=20, name="large"),
        seen(1, 1, long_mm=None, name="x"),
    ]
    grid = choose_cells(studies(1), shown)
    said = boxes(lay_out_longitudinal(studies(1), shown, [], "A"))

    assert grid.cells[1, 1].lesion_ids == {"small", "large", "x"}
    assert "large" in said
    assert "small" not in said
    assert "persistent (+2)" in said


def test_notes_name_what_was_left_out():
    numbers = range(1, MAX_STUDIES + 3)
    many = [seen(1, number) for number in numbers] + [seen(group, MAX_STUDIES) for group in range(2, MAX_GROUPS + 4)]
    grid = choose_cells(studies(len(numbers)), many)

    assert [study.number for study in grid.studies] == list(numbers)[2:]
    assert len(grid.groups) == MAX_GROUPS
    assert 1 in grid.groups
    assert grid.notes == ["2 earlier studies not shown.", "3 lesions that fewer of these studies show not shown."]
    assert set(grid.notes) <= set(boxes(lay_out_longitudinal(studies(len(numbers)), many, [], "A")))


def test_days_and_ages_that_nobody_knows_are_not_spoken_of():
    unknown = [StudyColumn(1), StudyColumn(2)]
    partly = [StudyColumn(1, 0.0), StudyColumn(2, None, 61.0)]
    shown = [seen(1, 1), seen(1, 2)]

    assert not [
        text for text in boxes(lay_out_longitudinal(unknown, shown, [], "A")) if text.startswith(("day", "age"))
    ]
    said = boxes(lay_out_longitudinal(partly, shown, [], "A"))
    assert {"day 0", "day unknown", "age unknown", "age 61"} <= set(said)


@pytest.mark.parametrize(
    ("columns", "shown"),
    [([], [seen(1, 1)]), (studies(1), []), (studies(1), [seen(1, 2)]), (studies(1) * 2, [seen(1, 1)])],
)
def test_what_cannot_be_placed_is_refused(columns, shown):
    with pytest.raises(ValueError, match="cannot be placed"):
        choose_cells(columns, shown)
