"""The eight lesion types of the release and their codes, and the codes that say "lymph node".

The order of the types is the release's own (1 = bone … 8 = pelvis). Public re-listings of it exist that are wrong
(1 = lung, 7 = bone), so nothing else in the project may spell the mapping out again.
"""

LESION_TYPES: tuple[str, ...] = (
    "bone",
    "abdomen",
    "mediastinum",
    "liver",
    "lung",
    "kidney",
    "soft_tissue",
    "pelvis",
)

# The release writes -1 where nobody assigned a type (its whole training split).
UNKNOWN_TYPE_CODE = -1


def lesion_type_from_code(code: int) -> str | None:
    """The type's name for a release code 1…8, or None for -1.

    Raises:
        KeyError: the code is neither -1 nor 1…8.
    """
    if code == UNKNOWN_TYPE_CODE:
        return None
    if not 1 <= code <= len(LESION_TYPES):
        raise KeyError(code)
    return LESION_TYPES[code - 1]


def code_from_lesion_type(name: str | None) -> int:
    """The release's code for a type's name, -1 for None.

    Raises:
        ValueError: the name is not one of `LESION_TYPES`.
    """
    return UNKNOWN_TYPE_CODE if name is None else LESION_TYPES.index(name) + 1


# Places and findings of SNOMED CT that are lymph nodes, of all that DICOM's context groups list (most of them in 7600);
# the staging of nodes, their biopsy and the heart's nodes are not among them.
_SNOMED_LYMPH_NODES = """
        283001 1439000 3243006 3916005 4942000 5296000 5394000 5727003
        6413002 8334002 8356004 8568009 8928004 9659009 10209003 11740004
        11899006 12196003 12728001 13482005 16050005 16051009 16228004 18457007
        21875007 23198005 24889003 25247006 25447008 25683005 28330007 28870006
        30024008 30746006 30793004 31171007 33770006 34625003 34775006 35721009
        35783009 36086000 36251007 40242007 40684008 41145006 42472007 44914007
        46055009 46157003 47109002 47471008 47985009 48193007 48918001 49394004
        50193000 52554005 53074004 54268001 58130000 59441001 59503006 60227002
        60965003 60996007 61492009 62683002 64038003 64556009 65266007 65349008
        65690001 67941004 68171009 68339009 68878000 68881005 68915008 69255009
        69691007 74203007 75040000 76290003 76659008 76704003 76838003 76878005
        77778009 79926007 80769008 80867000 81105003 81132008 82365008 83380007
        84219008 85380009 89858007 90606007 91394001 110550009 113336002 113340006
        127189005 127919002 127920008 127921007 127922000 127925003 127926002 127927006
        127930004 127931000 127932007 127937001 127938006 127939003 127940001 127941002
        143824007 143925009 144026003 155237005 155338003 164150006 167364008 167464007
        167664004 167864002 167965000 168159002 168360002 168460001 168557005 196446004
        196516004 196587000 196662004 196751009 196821008 245321008 245322001 245323006
        245324000 245328002 245341003 245344006 245346008 249708006 274303007 278571002
        278672000 279141006 279142004 279143009 279144003 279145002 279189002 279271008
        279609001 279784003 279795009 279866008 280216006 280314006 280402004 280556009
        280639005 280824006 280915003 280999005 281227003 281320004 281676003 281765006
        281847004 282031000 285425001 285427009 285429007 299993000 303623000 303713004
        312500006 312501005 312502003 312503008 314730000 314736006 360992006 360993001
        363537007 368550005 371013005 420800007 421624008 421861001 421988007 443808008
        818991007
"""
_OTHER_LYMPH_NODES = (
    "DCM:111251", "DCM:111252", "DCM:111253", "DCM:111300", "DCM:111330", "DCM:111333", "DCM:111507",
    "FMA:12785", "FMA:323407",
)  # fmt: skip

LYMPH_NODE_CODES = frozenset({f"SCT:{code}" for code in _SNOMED_LYMPH_NODES.split()} | set(_OTHER_LYMPH_NODES))
"""Every code, as scheme:code, of a lymph node as a place or as a finding."""


def is_lymph_node(finding_site: str | None, finding: str | None) -> bool:
    """Whether a mark's codes, as scheme:code, say that it is a lymph node.

    Nothing else says so: the mediastinum holds nodes and other lesions, and a mark without codes may be a node.
    """
    return finding_site in LYMPH_NODE_CODES or finding in LYMPH_NODE_CODES
