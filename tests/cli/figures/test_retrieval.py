"""The retrieval figure says everything about every hit, where it belongs, and nothing runs into anything else."""

import numpy as np
import pytest
from PIL import Image
from tidy_sheets import assert_tidy

from cli.figures.patches import cut_patch
from cli.figures.retrieval import MAX_HITS, MAX_ROWS, RetrievalRow, Tile, agreement, draw_retrieval, lay_out_retrieval


def patch(seed=0):
    hu = np.random.default_rng(seed).integers(-100, 100, (96, 96)).astype(np.int16)
    points = np.array([[40.0, 48.0], [56.0, 48.0], [48.0, 42.0], [48.0, 54.0]])
    return cut_patch(hu, (40, 42, 56, 54), points, (0.8, 0.8), (-100, 100), side_px=96)


def tile(number, lesion_type="lung", distance=None, picture=None, prefix="dl-"):
    return Tile(
        picture, f"{prefix}{number}", f"{prefix}p{number:06d}", lesion_type, 10.0 + number, 5.0 + number, distance
    )


def hits(count, **changes):
    return [tile(number, distance=number / 10, **changes) for number in range(1, count + 1)]


def where(sheet, words):
    (found,) = [text.box_xyxy_px for text in sheet.texts if text.text == words]
    return found


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 6, 20])
def test_every_text_of_every_hit_is_there_and_touches_no_other(rows, count):
    prefix = "pacs-abcdefghijkl"
    sheet = lay_out_retrieval(
        [RetrievalRow(tile(90 + row, prefix=prefix), hits(count, prefix=f"{prefix}{row}")) for row in range(rows)],
        "By x",
    )

    said = [text.text for text in sheet.texts]
    for row in range(rows):
        for number in range(1, count + 1):
            assert f"{prefix}{row}{number}" in said
            assert f"{prefix}{row}p{number:06d}" in said
    for number in range(1, count + 1):
        assert said.count(f"{10 + number:.1f} × {5 + number:.1f} mm") == rows
        assert said.count(f"d {number / 10:.3f}") == rows
    assert said.count("lung") == rows * (count + 1)
    assert_tidy(sheet)


def test_query_stands_left_and_hits_follow_in_their_order():
    sheet = lay_out_retrieval([RetrievalRow(tile(9), hits(3)), RetrievalRow(tile(8), [])], "By x")

    lefts = [where(sheet, f"dl-{number}")[0] for number in (9, 1, 2, 3)]
    assert lefts == sorted(lefts)
    assert len({where(sheet, f"dl-{number}")[1] for number in (9, 1, 2, 3)}) == 1
    assert where(sheet, "dl-8")[0] == where(sheet, "dl-9")[0]
    assert where(sheet, "dl-8")[1] > where(sheet, "dl-9")[3] + 200


def test_names_under_all_tiles_have_one_size():
    long, short = tile(1, prefix="pacs-very-long-pseudonym-"), tile(2)
    sheet = lay_out_retrieval([RetrievalRow(short, [long])], "By x")

    sizes = {text.text: text.size_px for text in sheet.texts}
    assert sizes["dl-2"] == next(size for text, size in sizes.items() if text.startswith("pacs-v") and "p0" not in text)


def test_legend_speaks_only_of_what_is_shown():
    def said(row):
        return {text.text for text in lay_out_retrieval([row], "By x").texts}

    same = said(RetrievalRow(tile(1), [tile(2, distance=0.1, picture=patch())]))
    other = said(RetrievalRow(tile(1, "liver"), [tile(2, distance=0.1), tile(3, None, 0.2)]))
    assert {"of the query's type", "long axis", "short axis", "d = distance to the query"} <= same
    assert not {"of another type", "type not known of one of them"} & same
    assert {"of another type", "type not known of one of them", "no image"} <= other
    assert not {"of the query's type", "long axis"} & other


def test_agreement_needs_both_types():
    assert agreement(tile(1), tile(2)) == "same"
    assert agreement(tile(1), tile(2, "liver")) == "other"
    assert agreement(tile(1, None), tile(2, None)) == "unknown"


@pytest.mark.parametrize("numbers", [3, 2048])
def test_vector_is_shown_by_its_first_numbers(numbers):
    query = Tile(None, None, None, None, None, None, None, tuple(np.linspace(-1, 1, numbers)))
    sheet = lay_out_retrieval([RetrievalRow(query, hits(2))], "By x")

    said = [text.text for text in sheet.texts]
    assert "vector" in said
    assert f"{numbers:,} numbers" in said
    assert any(text.startswith("-1, ") for text in said)
    assert "no name" not in said
    assert_tidy(sheet)


def test_tile_holds_the_patch_and_same_input_gives_same_pixels():
    rows = [RetrievalRow(tile(1, picture=patch(1)), [tile(2, picture=patch(2), distance=0.5)])]
    first, second = draw_retrieval(rows, "By x"), draw_retrieval(rows, "By x")
    without = draw_retrieval([RetrievalRow(tile(1), [tile(2, distance=0.5)])], "By x")

    assert first.tobytes() == second.tobytes()
    assert isinstance(first, Image.Image)
    assert np.asarray(first)[100:250, 40:200].std() > 3 * np.asarray(without)[100:250, 40:200].std()


@pytest.mark.parametrize(
    "rows",
    [[], [RetrievalRow(tile(1), [])] * (MAX_ROWS + 1), [RetrievalRow(tile(1), hits(MAX_HITS + 1))]],
    ids=["none", "rows", "hits"],
)
def test_too_much_or_nothing_is_refused(rows):
    with pytest.raises(ValueError, match="a retrieval figure holds"):
        draw_retrieval(rows, "By x")
