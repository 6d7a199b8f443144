"""Mining a PACS export against what people would otherwise use, and the price of the supervised child.

    python benchmarks/bench_dicom.py [--patients 24] [--rounds 3] [--folder DIR]

All in processor seconds (user and system, children included), which a busy machine disturbs less than the clock:

* lesionary: `lesionary ingest --workers 1` on uncompressed CT, less what the same command takes for a single slice;
* dcm2niix: the same files to .nii, and to .nii.gz, which like the lake is compressed;
* loop: pydicom reads each file, nibabel saves each series as .nii.gz, and as .nii;
* supervision: the same slices through the same decoders with and without the child, for several syntaxes;
* JPEG 2000: everything a slice goes through, against the bare decoder.

Rounds alternate; every file is read once before, so that all find it in the page cache.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from measure import measured, median, processor_seconds, ratio

BIN = Path(sys.executable).parent
SYNTAXES = ("explicit", "rle", "jpeg-lossless", "jpeg-ls", "htj2k", "jpeg-2000")


def make_export(folder: Path, patients: int, syntax: str, image_size: int = 512) -> Path:
    """An export of the phantom, made once."""
    if not (folder / "truth.json").exists():
        options = ["--patients", str(patients), "--syntax", syntax, "--image-size", str(image_size), "--no-strays"]
        command = [str(BIN / "lesionary"), "phantom", "pacs", str(folder), *options, "--max-slices-per-series", "40"]
        subprocess.run([*command, "--no-progress", "--force"], check=True, stdout=subprocess.DEVNULL)
    return folder / "export"


def ct_files(export: Path) -> list[Path]:
    """The image files of an export."""
    return [path for path in sorted(export.rglob("*")) if path.is_file() and "REPORTS" not in path.parts]


def lesionary(export: Path, scratch: Path, name: str) -> float:
    """Processor seconds of an ingest without Ray."""
    options = ["--lake", str(scratch / name), "--workers", "1", "--key-file", str(scratch / "key")]
    return processor_seconds([str(BIN / "lesionary"), "--quiet", "ingest", str(export), *options])


def dcm2niix(export: Path, scratch: Path, name: str, packed: str) -> float:
    """Processor seconds of dcm2niix."""
    out = scratch / name
    out.mkdir()
    return processor_seconds([str(BIN / "dcm2niix"), "-z", packed, "-b", "n", "-o", str(out), str(export)])


LOOP = """
import sys, pathlib, numpy as np, pydicom, nibabel
export, out, suffix = map(pathlib.Path, sys.argv[1:4])
series = {}
for path in sorted(export.rglob("*")):
    if path.is_file() and "REPORTS" not in path.parts:
        dataset = pydicom.dcmread(path)
        hu = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        series.setdefault(dataset.SeriesInstanceUID, []).append((dataset.ImagePositionPatient[2], hu.astype(np.int16)))
for number, slices in enumerate(series.values()):
    volume = np.stack([hu for _, hu in sorted(slices, key=lambda one: one[0])], axis=2)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), str(out / f"{number}{suffix}"))
"""


def loop(export: Path, scratch: Path, name: str, suffix: str) -> float:
    """Processor seconds of the loop people write first."""
    out = scratch / name
    out.mkdir()
    return processor_seconds([sys.executable, "-c", LOOP, str(export), str(out), suffix])


def supervision(export: Path) -> tuple[float, float, float, float]:
    """Processor seconds a slice: unsupervised, supervised (child and keeper), J2K decoded bare and by us."""
    import imagecodecs
    from pydicom.encaps import generate_frames

    from etl.ct_pixels import to_hu
    from etl.pacs_files import EncodeSlice
    from etl.planning import plan_sources
    from etl.supervision import Child, ChildLimits
    from lesionary.settings import IngestSettings

    with tempfile.TemporaryDirectory() as secret:
        plan = plan_sources([str(export)], IngestSettings(key_file=str(Path(secret, "key"))))
    requests = [file for unit in plan.units for image in getattr(unit, "images", ()) for file in image.files]
    plain = EncodeSlice(plan.tree)
    for request in requests[:20]:
        plain(request)
    started = time.process_time()
    for request in requests:
        plain(request)
    alone = time.process_time() - started
    child = Child(ChildLimits())
    list(child.map(EncodeSlice(plan.tree), requests[:20]))
    pid = child.pid
    before = time.process_time() + child_seconds(pid)
    for _ in child.map(EncodeSlice(plan.tree), requests):
        pass
    watched = time.process_time() + child_seconds(pid) - before
    child.stop()
    bare = ours = 0.0
    if requests[0].storage.syntax == "1.2.840.10008.1.2.4.90":
        streams = [
            next(generate_frames(plan.tree.read(one.container, one.member)[one.pixel_start :], number_of_frames=1))
            for one in requests
        ]
        started = time.process_time()
        for stream in streams:
            imagecodecs.jpeg2k_decode(stream)
        bare = time.process_time() - started
        started = time.process_time()
        for request, stream in zip(requests, streams, strict=True):
            to_hu(stream, request.storage)
        ours = time.process_time() - started
    count = len(requests)
    return alone / count, watched / count, bare / count, ours / count


def child_seconds(pid: int | None) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--patients", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="keep the made exports here for the next time")
    with (
        measured(parser, quick={"patients": 2, "rounds": 1}) as arguments,
        tempfile.TemporaryDirectory(prefix="lesionary-bench-") as scratch,
    ):
        data = arguments.folder or Path(scratch, "data")
        compare_tools(data, Path(scratch), arguments.patients, arguments.rounds)
        compare_supervision(data, arguments.rounds)


def compare_tools(data: Path, scratch: Path, patients: int, rounds: int) -> None:
    """Whole tools on uncompressed CT."""
    export = make_export(data / f"explicit-{patients}", patients, "explicit")
    single = scratch / "single"
    single.mkdir()
    files = ct_files(export)
    (single / "one").write_bytes(files[0].read_bytes())
    for path in export.rglob("*"):
        if path.is_file():
            path.read_bytes()
    seconds: dict[str, list[float]] = {}
    for number in range(rounds):
        start = lesionary(single, scratch, f"start-{number}")
        seconds.setdefault("start", []).append(start)
        seconds.setdefault("lesionary", []).append(lesionary(export, scratch, f"lake-{number}") - start)
        for name, packed in (("dcm2niix .nii", "n"), ("dcm2niix .nii.gz", "y")):
            seconds.setdefault(name, []).append(dcm2niix(export, scratch, f"{name}-{number}", packed))
        for suffix in (".nii", ".nii.gz"):
            seconds.setdefault(f"loop {suffix}", []).append(loop(export, scratch, f"loop{suffix}-{number}", suffix))
    print(f"{len(files)} slices of 512 × 512, uncompressed, medians of {rounds} rounds")
    for name, values in seconds.items():
        speed = "" if name == "start" else f"  {len(files) / median(values):7.0f} slices per core second"
        print(f"  {name:<18} {median(values):7.2f} s{speed}")
    ours = median(seconds["lesionary"])
    ratio(
        "speed over the pydicom loop that writes NIfTI (.nii.gz)", median(seconds["loop .nii.gz"]) / ours, at_least=3.0
    )
    ratio("speed over dcm2niix (.nii, not compressed)", median(seconds["dcm2niix .nii"]) / ours, at_least=1.0)
    print(f"  over the loop that writes .nii: {median(seconds['loop .nii']) / ours:.2f}")
    print(f"  over dcm2niix that writes .nii.gz: {median(seconds['dcm2niix .nii.gz']) / ours:.2f}")


def compare_supervision(data: Path, rounds: int) -> None:
    """The child against the same work without it."""
    print("milliseconds a slice: alone, supervised")
    for syntax in SYNTAXES:
        export = make_export(data / f"{syntax}-3", 3, syntax)
        measured = [supervision(export) for _ in range(rounds)]
        alone, watched, bare, ours = (median([one[at] for one in measured]) for at in range(4))
        print(f"  {syntax:<14} {alone * 1e3:6.2f} {watched * 1e3:6.2f}")
        ratio(f"supervised over alone, {syntax}", watched / alone, at_most=1.15)
        if bare:
            ratio("JPEG 2000 checked and turned into HU over the bare decoder", ours / bare, at_most=1.1)
            print(f"  a slice's whole way, supervised, over the bare JPEG 2000 decoder: {watched / bare:.2f}")


if __name__ == "__main__":
    main()
