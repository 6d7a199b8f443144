"""Key object selections: images somebody found worth pointing at, without saying where on them or how large."""

import warnings
from functools import partial

from pydicom.dataset import Dataset

from etl.marks.content_tree import ContentItem, content_tree, uid_of
from etl.marks.coordinates import Place, frames_of
from etl.marks.model import Mark, Report, Shape
from etl.marks.report_items import Reading, bad_item, report_of_items
from etl.quality import Reason, RefusedError

# Titles of selections that point at nothing in the image: rejection notes, quality issues, what a transfer holds, how
# images are hung.
_HOUSEKEEPING = frozenset({f"DCM:{code}" for code in (113001, 113010, 113022, *range(113030, 113040))})


def read_key_objects(dataset: Dataset) -> Report:
    """The images selected; each image, and each of its frames where it has some, is one item."""
    with warnings.catch_warnings(action="ignore"):
        root = content_tree(dataset)
        if root.name in _HOUSEKEEPING:
            raise RefusedError(Reason.NOT_A_REPORT, uid_of(dataset, "SOPClassUID") or "")
        images = [item for item in root.walk() if item.value_type == "IMAGE"]
        return report_of_items(dataset, "key_object", [reading for image in images for reading in _readings(image)])


def _readings(image: ContentItem) -> list[Reading]:
    return [partial(_read_key_image, place) for place in frames_of(image)] or [_refuse_nameless]


def _read_key_image(place: Place, number: int) -> Mark:
    return place.put(Mark(source_format="key_object", shape=Shape.KEY_IMAGE, item=number))


def _refuse_nameless(_number: int) -> Mark:
    raise bad_item("a key image that names no image")
