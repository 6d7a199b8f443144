"""Who the phantom's patients are in a PACS: names, numbers and free text in every place where exports carry them.

Each text is made up, unmistakable, and listed in the truth: a test looks for all of them in everything that comes out
of an ingest. Real exports hide names in descriptions, comments, private elements, overlays, nested sequences, the
128 bytes before the file's magic, code meanings, tracking identifiers, and in the names of files and folders.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from etl.phantom.plan import SeriesPlan

_FIRST_DAY = date(2017, 3, 1)
_PRIVATE_GROUP, _PRIVATE_CREATOR = 0x0009, "LESIONARY PHANTOM"


def made_up_uid(*parts: object) -> str:
    """A UID that the same parts always give."""
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:15], 'big')}"


@dataclass(slots=True)
class Identity:
    """A patient's identifiers and the texts planted around him."""

    seed: int
    number: int
    sex: str
    age_years: int
    texts: dict[str, str] = field(default_factory=dict)
    """Everything planted, by where it stands."""

    @property
    def patient_id(self) -> str:
        """His number in the hospital."""
        return self.plant("patient id", f"PLANTEDMRN{self.seed:03d}{self.number:05d}")

    @property
    def name(self) -> str:
        """Family and given name."""
        return self.plant("name", f"PLANTEDFAMILY{self.number:04d}^PLANTEDGIVEN{self.number:04d}")

    @property
    def birth_date(self) -> date:
        """A birthday that fits his age at the first study."""
        return _FIRST_DAY - timedelta(days=int(self.age_years * 365.25) + 100 + self.number % 200)

    def study_date(self, study_index: int) -> date:
        """When a study was made."""
        return _FIRST_DAY + timedelta(days=self.number % 97 + 131 * (study_index - 1))

    def plant(self, place: str, text: str) -> str:
        """Remember a text as planted, and give it back."""
        self.texts[place] = text
        return text

    def text(self, place: str) -> str:
        """A made-up text for a place, at most 64 characters."""
        return self.plant(place, f"PLANTED {place.upper()} {self.number:04d}")

    def planted(self) -> list[str]:
        """Every planted text."""
        return sorted({self.patient_id, *self.name.split("^"), *self.texts.values(), f"{self.birth_date:%Y%m%d}"})


def series_uids(plan: SeriesPlan, seed: int) -> tuple[str, str, str]:
    """UIDs of a series' study, of itself, and of its frame of reference."""
    patient = plan.patient.index
    return (
        made_up_uid(seed, "study", patient, plan.study_index),
        made_up_uid(seed, "series", patient, plan.study_index, plan.series.index),
        made_up_uid(seed, "frame of reference", patient, plan.study_index),
    )


def put_identity(dataset: Dataset, identity: Identity, study_index: int) -> None:
    """Fill the patient's and the study's elements, and plant texts in every place that exports carry them."""
    day = identity.plant(f"study date {study_index}", f"{identity.study_date(study_index):%Y%m%d}")
    dataset.PatientID, dataset.PatientName = identity.patient_id, identity.name
    dataset.PatientBirthDate, dataset.PatientSex = f"{identity.birth_date:%Y%m%d}", identity.sex
    years = identity.age_years + (identity.study_date(study_index) - _FIRST_DAY).days // 365
    dataset.PatientAge = f"{years:03d}Y"
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = day
    dataset.StudyTime = "113000"
    dataset.StudyID, dataset.AccessionNumber = "1", identity.plant("accession", f"PLANTEDACC{identity.number:06d}")
    for keyword in (
        "PatientComments", "PatientAddress", "OtherPatientNames", "InstitutionName", "InstitutionAddress",
        "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "StudyDescription", "SeriesDescription",
        "ProtocolName", "ImageComments", "AcquisitionDeviceProcessingDescription", "DeviceSerialNumber",
        "AdditionalPatientHistory", "RequestingPhysician",
    ):  # fmt: skip
        setattr(dataset, keyword, identity.text(keyword))
    dataset.StationName = identity.plant("station", f"PLANTEDST{identity.number:05d}")
    step = Dataset()
    step.ScheduledProcedureStepDescription = identity.text("nested step description")
    dataset.RequestAttributesSequence = Items([step])
    block = dataset.private_block(_PRIVATE_GROUP, _PRIVATE_CREATOR, create=True)
    block.add_new(0x01, "LO", identity.text("private element"))


def preamble(identity: Identity) -> bytes:
    """The 128 bytes before the magic, which nobody looks at."""
    return identity.text("preamble").encode().ljust(128, b"\0")[:128]


def all_planted(identities: Iterable[Identity], uids: Iterable[str]) -> list[str]:
    """Every text that must not come out of an ingest."""
    return sorted({text for identity in identities for text in identity.planted()} | set(uids))
