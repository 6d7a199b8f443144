"""Which reader a structured report goes to: by its class and what is in it, since templates go unnamed as often as not.

Reports that we do not read are told apart by whether anything could be lost: measurements in a form unknown to us are
an unsupported annotation, while dose and procedure records and plain text are no reports of lesions at all.
"""

import warnings
from types import MappingProxyType

from pydicom import uid
from pydicom.dataset import Dataset

from etl.marks.aim_sr import AIM_ROOT, read_aim_sr
from etl.marks.content_tree import content_tree, uid_of
from etl.marks.coordinates import DRAWN
from etl.marks.key_objects import read_key_objects
from etl.marks.model import Report
from etl.marks.sr import MEASUREMENT_GROUP, read_sr
from etl.quality import Reason, RefusedError

_TID_1500_ROOT = "DCM:126000"

_GENERAL = frozenset(
    {
        uid.BasicTextSRStorage,
        uid.EnhancedSRStorage,
        uid.ComprehensiveSRStorage,
        uid.Comprehensive3DSRStorage,
        uid.ExtensibleSRStorage,
        # Trial classes of before 2000, which old archives still hold.
        "1.2.840.10008.5.1.4.1.1.88.1",
        "1.2.840.10008.5.1.4.1.1.88.2",
        "1.2.840.10008.5.1.4.1.1.88.3",
        "1.2.840.10008.5.1.4.1.1.88.4",
    }
)
_UNREAD = MappingProxyType(
    {
        uid.MammographyCADSRStorage: Reason.UNSUPPORTED_ANNOTATION,
        uid.ChestCADSRStorage: Reason.UNSUPPORTED_ANNOTATION,
        uid.ColonCADSRStorage: Reason.UNSUPPORTED_ANNOTATION,
        uid.ProcedureLogStorage: Reason.NOT_A_REPORT,
        uid.XRayRadiationDoseSRStorage: Reason.NOT_A_REPORT,
        uid.EnhancedXRayRadiationDoseSRStorage: Reason.NOT_A_REPORT,
        uid.RadiopharmaceuticalRadiationDoseSRStorage: Reason.NOT_A_REPORT,
        uid.PatientRadiationDoseSRStorage: Reason.NOT_A_REPORT,
        uid.ImplantationPlanSRStorage: Reason.NOT_A_REPORT,
        uid.AcquisitionContextSRStorage: Reason.NOT_A_REPORT,
        uid.SimplifiedAdultEchoSRStorage: Reason.NOT_A_REPORT,
        uid.PlannedImagingAgentAdministrationSRStorage: Reason.NOT_A_REPORT,
        uid.PerformedImagingAgentAdministrationSRStorage: Reason.NOT_A_REPORT,
        uid.WaveformAnnotationSRStorage: Reason.NOT_A_REPORT,
    }
)

SR_CLASSES: frozenset[str] = _GENERAL | set(_UNREAD) | {uid.KeyObjectSelectionDocumentStorage}
"""SOP classes whose files are content trees."""


def read_report(dataset: Dataset) -> Report:
    """The marks of a structured report or key object selection."""
    with warnings.catch_warnings(action="ignore"):
        sop_class = uid_of(dataset, "SOPClassUID") or ""
        if sop_class == uid.KeyObjectSelectionDocumentStorage:
            return read_key_objects(dataset)
        if sop_class not in _GENERAL:
            raise RefusedError(_UNREAD.get(uid.UID(sop_class), Reason.NOT_A_REPORT), sop_class)
        root = content_tree(dataset)
        if root.name == AIM_ROOT:
            return read_aim_sr(dataset)
        items = list(root.walk())
        is_drawn = any(item.value_type in DRAWN for item in items)
        # Ultrasound reports have measurement groups too, and draw nothing.
        if root.name == _TID_1500_ROOT or (is_drawn and any(item.name == MEASUREMENT_GROUP for item in items)):
            return read_sr(dataset)
        is_measured = is_drawn or any(item.value_type == "NUM" for item in items)
        raise RefusedError(Reason.UNSUPPORTED_ANNOTATION if is_measured else Reason.NOT_A_REPORT, sop_class)
