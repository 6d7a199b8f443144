"""A lesion's patch as it is cached between the lake and the trainers: its columns, and what its pixels mean.

A patch is three slices around a lesion, 1 mm a pixel, centred on the lesion's box; int16 HU, so that windows and
scales stay the trainers' choice.
"""

import pyarrow as pa

PATCH_KIND = "patches"

PIXEL_MM = 1.0

# Sides of patches in pixels. Few, so that batches of one side can be made; the last one shows what fits into it.
BUCKETS: tuple[int, ...] = (128, 160, 192, 256, 320, 448)

# The paper's patch: the box and so much around it.
CONTEXT_MM = 50.0

# The three slices lie so far below the key slice's place, at it, and so far above it.
SLICE_STEP_MM = 2.0
SLICES_PER_PATCH = 3

# The paper's one window, from air to bone.
WINDOW_HU: tuple[float, float] = (-1024.0, 3071.0)

_BOX = pa.list_(pa.float32(), 4)

PATCHES = pa.schema(
    [
        pa.field("lesion_id", pa.string(), nullable=False),
        pa.field("patient_id", pa.string(), nullable=False),
        pa.field("study_id", pa.string(), nullable=False),
        pa.field("lesion_type", pa.string()),
        pa.field("split", pa.string()),
        pa.field("x", pa.float32(), metadata={"meaning": "place in the body, 0 to 1, right to left"}),
        pa.field("y", pa.float32(), metadata={"meaning": "place in the body, 0 to 1, front to back"}),
        pa.field("z", pa.float32(), metadata={"meaning": "place in the body, 0 to 1, head to foot"}),
        pa.field("long_mm", pa.float32()),
        pa.field("short_mm", pa.float32()),
        pa.field("side", pa.int32(), nullable=False, metadata={"meaning": "rows and columns", "unit": "px"}),
        pa.field("box", _BOX, nullable=False, metadata={"meaning": "x0, y0, x1, y1; 0 = first pixel's outer edge"}),
        pa.field("extent", _BOX, nullable=False, metadata={"meaning": "box and context, cut at the patch"}),
        pa.field("pixels", pa.large_binary(), nullable=False, metadata={"meaning": "int16 [3, side, side]"}),
    ]
)
