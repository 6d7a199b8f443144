"""Small DICOM files for tests: one plain CT slice, changed as a test wants it, and ways to take some in."""

import io
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import UID

from etl.ingest import ingest
from etl.phantom.pacs_images import DrawnImage, SeriesLook, enhanced_file, image_file
from etl.planning import plan_sources
from lesionary.lake import Lake
from lesionary.settings import IngestSettings

ROOT_UID = "1.2.826.0.1.3680043.8.498"


def picture(seed=0, size=32):
    """A bright disc in air with some noise: a body to be found."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    hu = np.where(x**2 + y**2 < (size / 3) ** 2, 40, -1000) + rng.integers(-20, 20, (size, size))
    return hu.astype(np.int16)


def uid(*parts):
    return ".".join([ROOT_UID, *map(str, parts)])


def look(syntax="explicit", *, signed=True, study=1, series=1, spacing=0.8):
    return SeriesLook(
        syntax, signed, spacing, 5.0, uid(1, study), uid(2, study, series), uid(3, study), (-160.0, 240.0)
    )


def identify(patient="PATIENT1", **elements):
    def put(dataset):
        dataset.PatientID, dataset.PatientName, dataset.StudyDate = patient, "DOE^JANE", "20200102"
        dataset.PatientSex, dataset.PatientAge = "F", "061Y"
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)

    return put


def ct(number=1, *, z=None, hu=None, patient="PATIENT1", sop=None, position=None, elements=None, **looks):
    """One CT slice as a file's bytes; slices lie 5 mm apart, number 1 nearest to the head."""
    chosen = look(**looks)
    place = position or (-12.8, -12.8, 100.0 - 5.0 * number if z is None else z)
    sop_uid = sop or f"{chosen.series_uid}.{number}"
    image = DrawnImage(sop_uid, 100 - number, place, picture(number) if hu is None else hu)
    return image_file(chosen, image, identify(patient, **(elements or {})), b"\0" * 128)


def changed(data, **elements):
    """A file with some elements replaced (None removes one), written again as it was."""
    dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    sink = io.BytesIO()
    dataset.save_as(sink, enforce_file_format=False)
    return sink.getvalue()


def enhanced(frames=3, *, syntax="enhanced"):
    """A multi-frame CT file."""
    chosen = look(syntax)
    images = [DrawnImage("", n, (-12.8, -12.8, 100.0 - 5.0 * n), picture(n)) for n in range(1, frames + 1)]
    return enhanced_file(chosen, images, f"{chosen.series_uid}.77", identify(), b"\0" * 128)


def mine(tmp_path, files, **settings):
    """Take files (name to bytes) in; the lake and the summary."""
    folder = tmp_path / "export"
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    lake = Lake.create(str(tmp_path / "lake"))
    return lake, take_in(lake, folder, tmp_path, **settings)


def take_in(lake, folder, tmp_path, **settings):
    chosen = IngestSettings(key_file=str(Path(tmp_path, "secret", "key")), **settings)
    return ingest(lake, plan_sources([str(folder)], chosen), chosen)


def adds_up(counts):
    return all(
        counts[f"{kind}_found"]
        == counts[f"{kind}_accepted"] + counts[f"{kind}_flagged"] + counts[f"{kind}_quarantined"]
        for kind in ("rows", "files")
    )


def reasons(tmp_path, *files):
    """Why each of some files was refused: all reasons of one ingest with a good slice beside them."""
    named = {f"f{number}": data for number, data in enumerate(files)}
    _, summary = mine(tmp_path, {"good": ct(series=99), **named})
    assert adds_up(summary.tally.counts)
    return dict(summary.tally.reasons)


def set_syntax(data, syntax):
    """A file that claims another transfer syntax."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    old = str(dataset.file_meta.TransferSyntaxUID).encode()
    new = str(UID(syntax)).encode()
    assert len(new) <= len(old) + len(old) % 2
    return data.replace(old.ljust(len(old) + len(old) % 2, b"\0"), new.ljust(len(old) + len(old) % 2, b"\0"), 1)
