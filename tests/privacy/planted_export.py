"""A PACS export and a release with a made-up identifier in every place that could carry one.

The phantom's export plants texts in elements, reports, states, XML and names (etl/phantom/pacs_identity.py). Here it is
put under a folder named after a patient, and what it does not have is added: odd file names, what archives say of
themselves and of their members, overlays, character sets, codes and UIDs that nobody published, damaged files, tables
with names in them.
"""

import gzip
import io
import json
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from conftest import annotation_row, png_bytes, slice_hu
from pacs_files import changed, ct, set_syntax, uid
from pydicom.dataset import Dataset
from sr_documents import LENGTH, LONG_POINTS, as_bytes, axis, coded, group, report

from lesionary.schema import RELEASE_COLUMNS

_STUDY = 947_113
_SUFFIX = ".qxjzv"
_GERMAN, _JAPANESE = "Größlich^Käthe", "山田^花子"
_PNG_HEAD = 8 + 25


@dataclass
class PlantedExport:
    """Where it lies, and what must not come out."""

    source: Path
    texts: list[str] = field(default_factory=list)

    def text(self, place: str) -> str:
        """A made-up text for a place, at most 64 characters."""
        return self.keep(f"PLANTEDX {place}")

    def keep(self, text: str) -> str:
        """A text that must not come out."""
        self.texts.append(text)
        return text

    def put(self, name: str | bytes, data: bytes) -> None:
        """Write a file, whatever its name."""
        path = os.path.join(os.fsencode(self.source), name.encode() if isinstance(name, str) else name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(data)


def plant_export(folder: Path, phantom: Path, texts: list[str]) -> PlantedExport:
    """A copy of the phantom's export with everything added, in a folder named after a patient."""
    planted = PlantedExport(folder / "PLANTEDX Größlich, Käthe 19310412" / "export", [*texts])
    planted.texts += ["PLANTEDX Größlich, Käthe", "Größlich", "Käthe", "19310412"]
    shutil.copytree(phantom, planted.source)
    for plant in (_images, _odd_names, _zips, _tars, _reports, _tables, _damaged, _other_files):
        plant(planted)
    return planted


def plant_release(folder: Path) -> PlantedExport:
    """A release whose table, images and strays hold names, in a folder named after a patient."""
    planted = PlantedExport(folder / "PLANTEDX Nachlass Wörner" / "release")
    planted.texts += ["PLANTEDX Nachlass", "Wörner"]
    side = 64
    text = planted.text("in a png")
    chunk = b"tEXtComment\0" + text.encode()
    for index in range(1, 6):
        image = png_bytes(slice_hu("000001_01_01", index, side))
        size = (len(chunk) - 4).to_bytes(4, "big")
        check = zlib.crc32(chunk).to_bytes(4, "big")
        planted.put(
            f"Images_png/000001_01_01/{index:03d}.png", image[:_PNG_HEAD] + size + chunk + check + image[_PNG_HEAD:]
        )
    planted.put(f"Images_png/000001_01_01/{planted.keep('PLANTEDX stray image')}.png", b"no png")
    planted.put(f"{planted.keep('PLANTEDX letter')}{_SUFFIX}", b"Dear colleague")
    small = {"Image_size": f"{side}, {side}"}
    rows = [
        annotation_row(**small),
        annotation_row(**small, Patient_gender=planted.text("in gender"), DICOM_windows=planted.text("in windows")),
        annotation_row(**small, File_name=planted.keep("PLANTEDX_01_01_003.png"), Key_slice_index="3"),
        annotation_row(**small, Measurement_coordinates=planted.text("in points")),
    ]
    lines = [",".join((*RELEASE_COLUMNS, planted.text("in a header")))]
    lines += [
        ",".join(f'"{row[name]}"' for name in RELEASE_COLUMNS) + f",{planted.text('in a column')}" for row in rows
    ]
    lines.append(planted.text("in a broken row"))
    planted.put("DL_info.csv", ("\n".join(lines) + "\n").encode())
    return planted


def _image(planted: PlantedExport, number: int, change: Callable[[Dataset], None], **looks: object) -> bytes:
    data = ct(number, patient=planted.keep("PLANTEDX-MRN-947113"), study=_STUDY, series=number, **looks)  # type: ignore[arg-type]
    dataset = pydicom.dcmread(io.BytesIO(data))
    planted.texts += [dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID]
    change(dataset)
    sink = io.BytesIO()
    dataset.save_as(sink)
    return sink.getvalue()


def _images(planted: PlantedExport) -> None:
    def overlay(dataset: Dataset) -> None:
        dataset.add_new(0x60000010, "US", 32)
        dataset.add_new(0x60000011, "US", 32)
        dataset.add_new(0x60000022, "LO", planted.text("overlay description"))
        dataset.add_new(0x60001500, "LO", planted.text("overlay label"))
        dataset.add_new(0x60003000, "OW", planted.text("overlay data").encode().ljust(128, b"\0"))

    def private(dataset: Dataset) -> None:
        inner = Dataset()
        inner.PatientName = planted.text("private sequence")
        block = dataset.private_block(0x0029, planted.text("private creator"), create=True)
        block.add_new(0x10, "UN", planted.text("private unknown").encode())
        block.add_new(0x11, "SQ", [inner])
        before = Dataset()
        before.PatientID = planted.text("original attributes")
        modified = Dataset()
        modified.ModifiedAttributesSequence = [before]
        dataset.OriginalAttributesSequence = [modified]
        dataset.add_new(0xFFFCFFFC, "OB", planted.text("trailing padding").encode())

    def fields(dataset: Dataset) -> None:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", planted.keep("PLANTEDX_TYPE")]
        dataset.ConvolutionKernel = planted.keep("PLANTEDX_KERNEL")
        dataset.WindowCenterWidthExplanation = planted.text("window explanation")
        dataset.Manufacturer = planted.text("manufacturer")
        dataset.PatientSex, dataset.PatientAge = planted.keep("PLANTEDX_SEX"), "061Y"
        dataset.ContrastBolusAgent = planted.text("contrast agent")
        dataset.FrameOfReferenceUID = planted.keep("2.25.94711300000001")

    def german(dataset: Dataset) -> None:
        dataset.SpecificCharacterSet, dataset.PatientName = "ISO_IR 100", _GERMAN

    def japanese(dataset: Dataset) -> None:
        dataset.SpecificCharacterSet, dataset.PatientName = (
            ["", "ISO 2022 IR 87"],
            f"Yamada^Hanako={planted.keep(_JAPANESE)}",
        )

    def burned_in(dataset: Dataset) -> None:
        dataset.BurnedInAnnotation = "YES"
        stored = bytearray(dataset.PixelData)
        text = planted.text("burned in").encode()
        stored[: len(text)] = text
        dataset.PixelData = bytes(stored)

    for number, change in enumerate((overlay, private, fields, german, japanese, burned_in), 1):
        planted.put(f"odd/{number}", _image(planted, number, change) + planted.text(f"after file {number}").encode())
    for number, syntax in enumerate(("1.2.840.10008.1.947113", "1.2.752.94711398.1.1"), 11):
        data = _image(planted, number, lambda _: None, syntax="jpeg-ls")
        planted.put(f"odd/{number}", set_syntax(data, planted.keep(syntax)))
    for number, kind in enumerate(("1.2.840.113619.94711397", "1.2.840.10008.5.1.4.1.1.94711396"), 21):
        data = _image(planted, number, lambda _: None)
        planted.put(f"odd/{number}", changed(data, SOPClassUID=planted.keep(kind)))


def _odd_names(planted: PlantedExport) -> None:
    one = _image(planted, 31, lambda _: None)
    planted.put(f"{planted.keep('PLANTEDX Übermäßig Straße')}/{planted.keep('PLANTEDX 花子')}.dcm", one)
    planted.put(f"IM0001{planted.keep(_SUFFIX)}", b"nothing of ours")
    planted.put(b"PLANTEDX-BYTES\xff\xfe.dcm", b"nothing of ours")
    planted.put(f"{planted.keep('PLANTEDX-FIRST')}\n{planted.keep('PLANTEDX-SECOND')}\x1b[31m", b"nothing of ours")
    planted.put("PLANTEDX-" + "n" * 200, b"nothing of ours")
    (planted.source / planted.keep("PLANTEDX-LINK")).symlink_to(planted.keep("/data/PLANTEDX-TARGET"))
    os.mkfifo(planted.source / planted.keep("PLANTEDX-PIPE"))


def _zips(planted: PlantedExport) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = planted.text("zip comment").encode()
        info = zipfile.ZipInfo(f"{planted.keep('PLANTEDX Zürich')}/{planted.text('zip member')}.dcm")
        info.comment = planted.text("member comment").encode()
        extra = planted.text("extra field").encode()
        info.extra = b"\x75\x99" + len(extra).to_bytes(2, "little") + extra
        archive.writestr(info, _image(planted, 41, lambda _: None))
        archive.writestr(f"../../{planted.text('escaping member')}", b"x")
        archive.writestr(f"{planted.text('bomb member')}", b"\0" * 3_000_000)
        archive.writestr(
            f"{planted.text('inner zip')}.zip", b"PK\x03\x04 broken " + planted.text("broken zip").encode()
        )
    planted.put(f"{planted.text('zip name')}.zip", buffer.getvalue())
    planted.put(f"{planted.text('broken zip name')}.zip", buffer.getvalue()[:-30])


def _tars(planted: PlantedExport) -> None:
    buffer = io.BytesIO()
    comment = {"comment": planted.text("pax comment")}
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers=comment) as archive:
        data = _image(planted, 51, lambda _: None)
        info = tarfile.TarInfo(f"{planted.text('tar member')}.dcm")
        info.size, info.uname, info.gname = len(data), planted.text("tar user"), planted.text("tar group")
        info.pax_headers = {"LESIONARY.owner": planted.text("pax owner")}
        archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo(planted.text("tar link"))
        link.type, link.linkname = tarfile.SYMTYPE, planted.text("tar link target")
        archive.addfile(link)
    packed = io.BytesIO()
    with gzip.GzipFile(planted.text("gzip file name"), "wb", 1, packed) as sink:
        sink.write(buffer.getvalue())
    planted.put("odd/one.tar.gz", packed.getvalue())
    planted.put("odd/broken.tar", buffer.getvalue()[:700] + planted.text("broken tar").encode() * 30)


def _reports(planted: PlantedExport) -> None:
    codes = [
        coded(
            name,
            (
                planted.keep(f"PLANTEDXCODE{number}"),
                planted.keep(f"99PLANTEDX{number}"),
                planted.text(f"code {number}"),
            ),
        )
        for number, name in enumerate((("G-C0E3", "SRT"), ("121071", "DCM")))
    ]
    document = report(group(axis(LENGTH, "30", LONG_POINTS), *codes))
    document.SOPInstanceUID = planted.keep("2.25.94711300000002")
    document.PatientID = planted.text("report patient")
    # What the other codes of the document mean (tests/sr_documents.py).
    planted.keep("Jane Doe")
    planted.put("odd/report", as_bytes(document))
    planted.put("odd/broken.xml", f"<ImageAnnotationCollection><name>{planted.text('broken xml')}</nome>".encode())
    entity = f'<!DOCTYPE a [<!ENTITY e "{planted.text("xml entity")}">]>'
    planted.put("odd/entity.xml", f"{entity}<ImageAnnotationCollection>&e;</ImageAnnotationCollection>".encode())


def _tables(planted: PlantedExport) -> None:
    header = "sop_instance_uid,long_x1,long_y1,long_x2,long_y2,coord_convention,stated_long,stated_unit,patient_name"
    image = f"{uid(2, _STUDY, 31)}.31"
    rows = [
        f"{image},5,5,20,5,zero_based,12,mm,{planted.text('table column')}",
        f"{planted.text('instead of a uid')},5,5,20,5,zero_based,12,mm,x",
        f"{image},{planted.text('instead of a number')},5,20,5,zero_based,12,mm,x",
        f"{image},5,5,20,5,{planted.text('convention')},12,mm,x",
        f"{image},6,6,20,6,zero_based,{planted.text('length')},{planted.text('unit')},x",
        planted.text("short row"),
    ]
    planted.put("odd/marks.csv", "\n".join([header, *rows]).encode())
    mark = {"sop_instance_uid": planted.text("json uid"), "name": planted.text("json name")}
    planted.put("odd/marks.json", json.dumps({"marks": [mark]}).encode())


def _damaged(planted: PlantedExport) -> None:
    whole = _image(planted, 61, lambda dataset: setattr(dataset, "PatientComments", planted.text("cut comments")))
    planted.put("odd/cut.dcm", whole[: int(len(whole) * 0.4)])
    planted.put("odd/cut pixels.dcm", whole[:-500])
    planted.put("odd/garbled.dcm", whole[:140] + planted.text("garbled element").encode() * 9 + whole[140:])
    wrong = planted.text("instead of rows")
    planted.put(
        "odd/rows.dcm",
        whole.replace(
            b"\x28\x00\x10\x00US\x02\x00", b"\x28\x00\x10\x00LO" + len(wrong).to_bytes(2, "little") + wrong.encode()
        ),
    )
    spacing = changed(whole, SOPInstanceUID=planted.keep("2.25.94711300000003"))
    planted.put("odd/spacing.dcm", spacing.replace(b"0.8\\0.8 ", b"PLANTEDX"))
    planted.keep("PLANTEDX")


def _other_files(planted: PlantedExport) -> None:
    planted.put(f"{planted.text('letter')}.txt", planted.text("letter text").encode())
    planted.put("report.pdf", b"%PDF-1.4 " + planted.text("pdf text").encode())
    planted.put("DICOMDIR", b"\0" * 128 + b"DICM" + planted.text("directory").encode())
