"""Quirks in a written release: each is to be found where the truth says, and nowhere else."""

import csv
import json
from collections import Counter
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from etl.phantom.plan import SeriesPlan
from etl.phantom.quirks import apply_to_plans, selected_quirks
from etl.phantom.quirks_of_plans import PLAN_QUIRKS
from etl.phantom.reading import draw_slice
from etl.phantom.release import ReleaseSettings, plan_series, write_release

PATIENTS = 5
SEED = 1
SIZE = 96
PLAN_NAMES = [quirk.name for quirk in PLAN_QUIRKS]

Row = dict[str, str]


class Release:
    """A written release and its truth."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.text = (folder / "DL_info.csv").read_bytes()
        self.rows: list[Row] = list(csv.DictReader(self.text.decode("utf-8-sig").splitlines()))
        self.truth = json.loads((folder / "truth.json").read_text())

    def touched(self, name: str) -> list[Row]:
        return [self.rows[number - 1] for number in self.truth["quirks"][name]["rows"]]

    def files(self, name: str) -> list[Path]:
        return [self.folder / file for file in self.truth["quirks"][name]["files"]]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A release with every quirk in it."""
    folder = tmp_path_factory.mktemp("odd") / "out"
    settings = ReleaseSettings(patients=PATIENTS, seed=SEED, image_size=SIZE, max_slices_per_series=13, quirks=("all",))
    write_release(folder, settings)
    return Release(folder)


@pytest.fixture(scope="module")
def plans() -> list[SeriesPlan]:
    settings = ReleaseSettings(patients=PATIENTS, seed=SEED, image_size=SIZE, max_slices_per_series=13)
    return [plan for index in range(1, PATIENTS + 1) for plan in plan_series(settings, index)]


def numbers(cell: str) -> list[float]:
    return [float(part) for part in cell.split(",")]


def image_of(release: Release, row: Row) -> Path:
    name = row["File_name"].replace("\\", "_")
    return release.folder / "Images_png" / name[:12] / name[13:]


def test_every_quirk_finds_a_place(odd: Release) -> None:
    assert set(odd.truth["quirks"]) == set(selected_quirks(["all"]))
    assert [name for name, places in odd.truth["quirks"].items() if not places["rows"] and not places["files"]] == []


@pytest.mark.parametrize("name", PLAN_NAMES)
def test_a_plan_quirk_changes_one_series_and_the_same_one_again(name: str, plans: list[SeriesPlan]) -> None:
    once, again = (apply_to_plans([name], SEED, plans) for _ in range(2))

    assert sum(new != old for new, old in zip(once, plans, strict=True)) == 1
    assert once == again


@pytest.mark.parametrize("name", PLAN_NAMES)
def test_a_plan_quirk_leaves_a_release_without_series_alone(name: str) -> None:
    assert apply_to_plans([name], SEED, []) == []


def test_only_the_touched_box_leaves_its_image(odd: Release) -> None:
    def leaves(row: Row) -> bool:
        box = numbers(row["Bounding_boxes"])
        return min(box) < 1 or max(box) > numbers(row["Image_size"])[0]

    assert [row for row in odd.rows if leaves(row)] == odd.touched("box-over-edge")


def test_large_images_have_the_size_the_row_says(odd: Release) -> None:
    for name, size in (("large-image", SIZE * 3 // 2), ("very-large-image", SIZE * 2)):
        for row in odd.touched(name):
            assert row["Image_size"] == f"{size}, {size}"
    assert {row["Image_size"] for row in odd.rows} == {f"{size}, {size}" for size in (SIZE, SIZE * 3 // 2, SIZE * 2)}


def test_one_series_has_two_intervals(odd: Release, plans: list[SeriesPlan]) -> None:
    (changed,) = [
        new for new, old in zip(apply_to_plans(["two-intervals"], SEED, plans), plans, strict=True) if new != old
    ]

    intervals = [part.interval_mm for part in changed.sub_volumes]
    touched = {row["File_name"][:12] for row in odd.touched("two-intervals")}
    assert len(set(intervals)) == 2
    assert {changed.name} == touched


def test_a_single_slice_is_missing_between_two_sub_volumes(odd: Release) -> None:
    ranges = sorted({tuple(numbers(row["Slice_range"])) for row in odd.touched("sub-volumes-one-apart")})

    assert len(ranges) == 2
    assert ranges[1][0] - ranges[0][1] == 2


def test_several_rows_name_one_file(odd: Release) -> None:
    names = Counter(row["File_name"] for row in odd.touched("lesions-share-image"))

    assert len(names) == 1
    assert max(names.values()) >= 2


def test_the_key_slice_is_the_last_of_its_range(odd: Release) -> None:
    for row in odd.touched("key-on-edge"):
        assert numbers(row["Slice_range"])[1] == int(row["Key_slice_index"])


def test_only_the_touched_row_is_noisy(odd: Release) -> None:
    assert [row for row in odd.rows if row["Possibly_noisy"] == "1"] == odd.touched("noisy-row")


def test_a_noisy_row_misses_its_lesion(plans: list[SeriesPlan], odd: Release) -> None:
    changed = apply_to_plans(selected_quirks(["all"]), SEED, plans)
    (row,) = odd.touched("noisy-row")
    plan = next(plan for plan in changed if plan.name == row["File_name"][:12])
    (key,) = [key for key in plan.keys if key.noisy]

    mask = draw_slice(plan, key.slice_index).masks[key.lesion_id] > 0.5
    x, y = np.array(numbers(row["Measurement_coordinates"])).reshape(4, 2)[:2].mean(axis=0)

    assert not mask[round(y) - 1, round(x) - 1]


def test_missing_files_are_the_only_ones_missing(odd: Release) -> None:
    wanted: set[Path] = set()
    for row in odd.rows:
        if row not in odd.touched("key-outside-range"):
            first, last = (int(value) for value in numbers(row["Slice_range"]))
            folder = image_of(odd, row).parent
            wanted |= {folder / f"{index:03d}.png" for index in range(first, last + 1)}

    missing = {path for path in wanted if not path.exists()}

    # A stretch whose only row states another range cannot be checked from the table.
    removed = {*odd.files("missing-key-image"), *odd.files("missing-context-images")}
    assert missing == removed & wanted
    assert set(odd.files("missing-key-image")) <= missing
    assert [image_of(odd, row) for row in odd.touched("missing-key-image")] == odd.files("missing-key-image")


def test_damaged_files_are_the_only_ones_that_do_not_decode_to_16_bits(odd: Release) -> None:
    bad_checksum = odd.files("bad-checksum-image")
    odd_ones = []
    for path in sorted((odd.folder / "Images_png").rglob("*.png")):
        try:
            pixels = imagecodecs.png_decode(path.read_bytes())
        except imagecodecs.PngError:
            odd_ones.append(path)
            continue
        if pixels.dtype != np.uint16 and path not in bad_checksum:
            odd_ones.append(path)

    named = [*odd.files("truncated-image"), *odd.files("eight-bit-image"), *bad_checksum]
    assert set(odd_ones) | set(bad_checksum) == set(named)
    assert set(odd_ones) >= {*odd.files("truncated-image"), *odd.files("eight-bit-image")}


@pytest.mark.parametrize(
    ("name", "straighten"),
    [
        ("flipped-key-image", lambda image: image[:, ::-1]),
        ("upside-down-key-image", lambda image: image[::-1]),
        ("rotated-key-image", lambda image: np.rot90(image, -1)),
    ],
)
def test_a_turned_key_image_turns_with_its_marks(name: str, straighten: object, plans: list[SeriesPlan]) -> None:
    changed = apply_to_plans([name], SEED, plans)
    ((new, old),) = [(new, old) for new, old in zip(changed, plans, strict=True) if new != old]
    index = new.edits[0].slice_index

    turned, straight = draw_slice(new, index), draw_slice(old, index)

    assert callable(straighten)
    assert np.array_equal(straighten(turned.hu), straight.hu)
    for lesion, mask in straight.masks.items():
        assert np.array_equal(straighten(turned.masks[lesion]), mask)


def test_a_turned_body_box_still_holds_the_same_pixels(plans: list[SeriesPlan]) -> None:
    for name in ("flipped-key-image", "upside-down-key-image", "rotated-key-image"):
        changed = apply_to_plans([name], SEED, plans)
        ((new, old),) = [(new, old) for new, old in zip(changed, plans, strict=True) if new != old]
        index = new.edits[0].slice_index

        inside = [
            np.sort(drawn.hu[round(top) : round(bottom) + 1, round(left) : round(right) + 1], axis=None)
            for drawn in (draw_slice(new, index), draw_slice(old, index))
            for left, top, right, bottom in [drawn.body_box_xyxy_px]
        ]

        assert np.array_equal(*inside)


def test_the_table_has_windows_line_ends_and_a_byte_order_mark(odd: Release) -> None:
    assert odd.text.startswith(b"\xef\xbb\xbfFile_name")
    assert odd.text.count(b"\r\n") == odd.text.count(b"\n") == len(odd.rows) + 1
