"""What every figure drawn on a sheet must keep."""

from itertools import combinations


def assert_tidy(sheet):
    """No text leaves the sheet and no two meet."""
    for text in sheet.texts:
        left, top, right, bottom = text.box_xyxy_px
        assert 0 <= left <= right <= sheet.image.width, text
        assert 0 <= top <= bottom <= sheet.image.height, text
    for one, other in combinations(sheet.texts, 2):
        a, b = one.box_xyxy_px, other.box_xyxy_px
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (one, other)
