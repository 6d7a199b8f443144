"""Patches whose lesions fall into categories that anybody can see, and a categoriser small enough for a test."""

import numpy as np
from small_patches import patch_rows

TINY = {
    "width": 16, "grid": 2, "scale_mm": 2.0, "input_px": 32, "least_crop_mm": 64.0, "components": 8, "batch": 8,
    "steps": 4, "max_rounds": 3, "least_k": 2, "most_k": 6, "halvings": 2, "restarts": 2, "checkpoint_every": 2,
    "log_every": 1, "stop_purity": 2.0, "choose_rounds": 2, "place_weight": 1.0,
}  # fmt: skip
"""Changes to the preset `smoke`; rounds never agree enough to end before the last."""


def planted_rows(count=60, patients=15, categories=3, seed=0, **changes):
    """Patches of lesions whose whole surroundings, not only themselves, are of one of a few kinds."""
    rng = np.random.default_rng(seed)
    rows = patch_rows(count, patients, categories, seed, **changes)
    if "pixels" in changes:
        return rows
    yy, xx = np.mgrid[0:128, 0:128]
    for number, row in enumerate(rows):
        kind = number % categories
        pixels = np.frombuffer(row["pixels"], "<i2").reshape(3, 128, 128).astype(np.float64)
        pixels += 400 * np.sin((xx if kind else yy) / (4 + 5 * kind)) + rng.normal(0, 10)
        row["pixels"] = np.clip(pixels, -1024, 3071).astype("<i2").tobytes()
    return rows


def kind_of(row_number, categories=3):
    """What was planted in a row of `planted_rows`."""
    return row_number % categories
