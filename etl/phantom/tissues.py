"""What a pixel of the phantom belongs to; lesions find their host tissue by these labels."""

from enum import IntEnum, auto


class Tissue(IntEnum):
    """Labels of the label map; 0 is air outside the body."""

    AIR = 0
    FAT_UNDER_SKIN = auto()
    MUSCLE = auto()
    FAT_ABDOMEN = auto()
    FAT_MEDIASTINUM = auto()
    FAT_PELVIS = auto()
    LUNG = auto()
    HEART = auto()
    VESSEL = auto()
    LIVER = auto()
    SPLEEN = auto()
    KIDNEY = auto()
    STOMACH = auto()
    BOWEL = auto()
    PANCREAS = auto()
    BONE = auto()
    BLADDER = auto()
    PELVIC_ORGAN = auto()
    AIRWAY = auto()
    OESOPHAGUS = auto()
    GALLBLADDER = auto()
    ADRENAL = auto()
    ARM = auto()
    BREAST = auto()
    HILUM = auto()


BODY_FAT = (Tissue.FAT_ABDOMEN, Tissue.FAT_MEDIASTINUM, Tissue.FAT_PELVIS)
