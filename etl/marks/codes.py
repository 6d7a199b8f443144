"""Codes of published lists: which ones may pass, what they say of a lesion's place, and which name a diameter.

A code passes only when pydicom's dictionary of DICOM's context groups holds it, whatever meaning the file writes beside
it: invented codes and free text dressed up as codes ("CORNERSTONEFREETEXT") do not. Codes of the withdrawn scheme SRT
become SNOMED CT where the dictionary maps them; SNOMED CT codes under the label SRT, which occur, are recognised.
"""

from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import cast

from pydicom.dataset import Dataset
from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping as snomed_mapping

_PASSING_SCHEMES = ("SCT", "DCM", "RADLEX", "FMA", "NCIt", "UMLS")
_SCHEME_NAMES = {"SNM3": "SRT", "99SDM": "SRT", "SRT": "SRT", "SCT": "SCT", "SNOMEDCT": "SCT"}


class Concept(StrEnum):
    """What a measurement or an item of a report is about; everything else has no name here."""

    LONG_AXIS = "long_axis"
    SHORT_AXIS = "short_axis"
    LENGTH = "length"
    FINDING = "finding"
    FINDING_SITE = "finding_site"


# Accepted for each concept, as scheme:code (docs/pacs.md says where each was seen).
_CONCEPT_CODES: Mapping[str, Concept] = MappingProxyType(
    {
        "SRT:G-A185": Concept.LONG_AXIS,
        "SCT:103339001": Concept.LONG_AXIS,
        "SCT:131187009": Concept.LONG_AXIS,
        "SRT:G-A193": Concept.LONG_AXIS,
        "SRT:G-A186": Concept.SHORT_AXIS,
        "SCT:103340004": Concept.SHORT_AXIS,
        "SCT:131188004": Concept.SHORT_AXIS,
        "SCT:131189007": Concept.SHORT_AXIS,
        "SRT:G-A194": Concept.SHORT_AXIS,
        "SRT:G-A195": Concept.SHORT_AXIS,
        "SRT:G-D7FE": Concept.LENGTH,
        "SCT:410668003": Concept.LENGTH,
        "SRT:G-A22A": Concept.LENGTH,
        "SRT:M-02550": Concept.LENGTH,
        "SCT:81827009": Concept.LENGTH,
        "DCM:121206": Concept.LENGTH,
        "DCM:121227": Concept.LENGTH,
        "DCM:121071": Concept.FINDING,
        "SRT:G-C0E3": Concept.FINDING_SITE,
        "SCT:363698007": Concept.FINDING_SITE,
    }
)

# SNOMED CT places to the eight types; a place above or between them (chest, trunk) says nothing.
_SITES_OF_TYPE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "bone": (
            "272673000", "3138006", "272710004", "51282000", "113197003", "56873002", "54735007", "22356005",
            "79601000", "51299004", "71341001", "14806007", "39976000", "113205007", "5329002",
            "36978003", "36054005", "87391001", "64864005", "53733008", "1626008", "73071006", "56401006", "45296009",
            "62487009", "11068009", "82687006", "7610001", "12989004", "23215003", "66794005", "14293000", "36470004",
            "11994002", "49668003",
        ),
        "abdomen": (
            "818981001", "113345001", "80581009", "78961009", "15776009", "23451007", "69695003",
            "71854001", "30315005", "28231008", "82849001", "89679009", "15425007", "8568009", "818991007", "38848004",
            "32713005",
        ),
        "mediastinum": (
            "72410000", "62683002", "5296000", "25447008", "127926002", "127925003", "127927006", "127931000",
            "127939003", "9875009", "32849002", "80891009",
        ),
        "liver": ("10200004", "71133005"),
        "lung": (
            "39607008", "3341006", "44029006", "31094006", "45653009", "44714003", "42400003", "40020002", "72481006",
            "90572001", "266005", "41224006", "46750007", "86598002", "22270008", "39743006", "3236000", "3120008",
            "72674008",
        ),
        "kidney": ("64033007", "25990002", "9846003", "18639004"),
        "soft_tissue": (
            "87784001", "78904004", "68171009", "71616004", "39937001", "13024002", "76752008", "71966008",
        ),
        "pelvis": (
            "816092008", "12921003", "118645006", "89837001", "41216001", "35039007", "15497006", "34402009",
            "54268001", "8928004",
        ),
    }
)  # fmt: skip
_TYPE_OF_SITE = MappingProxyType(
    {f"SCT:{code}": lesion_type for lesion_type, codes in _SITES_OF_TYPE.items() for code in codes}
)


@cache
def _published() -> frozenset[str]:
    """Every code of the dictionary in the schemes that may pass, as scheme:code."""
    dictionary = cast("dict[str, dict[str, dict[str, object]]]", concepts)
    listed = {
        f"{scheme}:{code}"
        for scheme in _PASSING_SCHEMES
        for codes in dictionary.get(scheme, {}).values()
        for code in codes
    }
    return frozenset(listed | {f"SCT:{code}" for code in snomed_mapping["SCT"]} | set(_TYPE_OF_SITE))


def known_code(value: str, scheme: str) -> str | None:
    """The code as scheme:code when a published list holds it, in SNOMED CT where it can be; else None."""
    value, scheme = value.strip(), _SCHEME_NAMES.get(scheme.strip(), scheme.strip())
    if scheme == "SRT":
        # SNOMED CT's numbers under the withdrawn scheme's name occur in real files.
        scheme, value = "SCT", snomed_mapping["SRT"].get(value, value)
    code = f"{scheme}:{value}"
    return code if code in _published() else None


def concept_of(value: str, scheme: str) -> Concept | None:
    """What an item with this concept name is about, of what we read."""
    value, scheme = value.strip(), _SCHEME_NAMES.get(scheme.strip(), scheme.strip())
    return _CONCEPT_CODES.get(f"{scheme}:{value}")


def lesion_type_of_site(site: str | None) -> str | None:
    """The type of `lesionary/anatomy.py` that a place (as scheme:code) belongs to; None when it says too little."""
    return _TYPE_OF_SITE.get(site or "")


def site_of_lesion_type(lesion_type: str) -> str:
    """The place, as scheme:code, that stands for a whole type."""
    return f"SCT:{_SITES_OF_TYPE[lesion_type][0]}"


def code_of_item(item: Dataset) -> tuple[str, str] | None:
    """Value and scheme of a code sequence item; None when it has neither or they do not parse."""
    try:
        value = item.get("CodeValue") or item.get("LongCodeValue")
        scheme = item.get("CodingSchemeDesignator")
    except Exception:  # noqa: BLE001 (pydicom raises whatever a broken element makes its converters raise)
        return None
    return (str(value), str(scheme)) if value and scheme else None
