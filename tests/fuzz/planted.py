"""One lesion as every kind of document has it, for seeds."""

from etl.export.sr_document import MarkedImage
from etl.phantom.pacs_identity import Identity
from etl.phantom.pacs_marks import PlantedLesion, ReportNames

LESION = PlantedLesion(
    "1-1", "liver", MarkedImage("1.2.3.4", series_uid="1.2.3.5"), "1.2.3.6",
    (10.5, 20.25, 50.5, 20.75, 30.0, 8.5, 30.25, 30.0), 32.1, 17.25, (0.0, 0.0, 0.0), 0.8, "1.2.3.7",
)  # fmt: skip
NAMES = ReportNames("1.2.3.6", "1.2.3.8", "1.2.3.9", 1)
WHO = Identity(1, 1, "F", 50)
