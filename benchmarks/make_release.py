"""A release of any size for the benchmarks: phantom slices drawn once, then given fresh noise for every slice.

Drawing thousands of slices would take longer than what is to be measured; fresh noise keeps each PNG as hard to
compress as a drawn one.
"""

import functools
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np

from etl.phantom.patient import make_patient
from etl.phantom.render import render_slice
from etl.phantom.scanner import make_series
from etl.phantom.study import make_study
from lesionary.schema import RELEASE_COLUMNS

SIDE_PX = 512
SLICES_PER_SERIES = 25
_DRAWN = 24
_NOISE_HU = 6.0
_PNG_LEVEL = 4


def write_release(folder: Path, slices: int) -> Path:
    """A release of `slices` 512 × 512 slices in series of 25, one annotation row each; kept if already there."""
    marker = folder / "complete"
    if marker.exists() and marker.read_text() == str(slices):
        return folder
    series = range(1, slices // SLICES_PER_SERIES + 1)
    with ProcessPoolExecutor() as pool:
        list(pool.map(functools.partial(_write_series, folder), series, chunksize=4))
    rows = [",".join(RELEASE_COLUMNS), *map(_row, series)]
    (folder / "DL_info.csv").write_text("\n".join(rows) + "\n")
    marker.write_text(str(slices))
    return folder


@functools.cache
def _drawn() -> list[np.ndarray]:
    patient = make_patient(1, 1)
    study = make_study(patient, 1)
    series = make_series(patient, study, 1, SIDE_PX)
    heights = np.linspace(0.1, 0.95, _DRAWN) * patient.trunk_length_mm
    return [render_slice(patient, study, series, float(z), ()).hu for z in heights]


def _write_series(folder: Path, number: int) -> None:
    target = folder / "Images_png" / f"{number:06d}_01_01"
    target.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(number)
    for index in range(1, SLICES_PER_SERIES + 1):
        base = _drawn()[(number + index) % _DRAWN]
        hu = base + np.rint(rng.normal(0, _NOISE_HU, base.shape)).astype(np.int16) * (base > -900)
        stored = (hu.astype(np.int32) + 32768).astype(np.uint16)
        (target / f"{index:03d}.png").write_bytes(imagecodecs.png_encode(stored, level=_PNG_LEVEL))


def _row(number: int) -> str:
    name = f"{number:06d}_01_01_013.png"
    return (
        f'{name},{number},1,1,13,"200, 250, 240, 250, 220, 240, 220, 260","195, 235, 245, 265","40, 20",'
        f'"0.4, 0.5, 0.6",5,0,"1, 25","0.8, 0.8, 5","512, 512","-175, 275",F,60.0,3'
    )
