"""The numbered zips of a release: `Images_png_01.zip` and on, members `Images_png/<series>/<slice>.png`.

Members are stored, not compressed again, in the order of series and slices, with one fixed time: the same pictures
give the same bytes. A series is never divided between two zips. A zip appears under its name when it is whole.
"""

import zipfile
from pathlib import Path
from types import TracebackType
from typing import Self

IMAGE_FOLDER = "Images_png"

# The earliest time a zip can name.
_MEMBER_TIME = (1980, 1, 1, 0, 0, 0)
_MEMBER_MODE = 0o100644 << 16


class NumberedZips:
    """Zips of about so many slices each, filled one series after another."""

    def __init__(self, folder: Path, slices_per_zip: int) -> None:
        self._folder = folder
        self._slices_per_zip = slices_per_zip
        self._number = 0
        self._slices = 0
        self._zip: zipfile.ZipFile | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        elif self._zip is not None:
            self._zip.close()
            self._part_path().unlink(missing_ok=True)

    @property
    def count(self) -> int:
        """Zips begun so far."""
        return self._number

    def add_series(self, series_folder: Path) -> None:
        """Store every slice file of a series' folder."""
        files = sorted(series_folder.glob("*.png"), key=lambda file: int(file.stem))
        if self._zip is not None and self._slices + len(files) > self._slices_per_zip:
            self._finish()
        if self._zip is None:
            self._number += 1
            self._zip = zipfile.ZipFile(self._part_path(), "w", zipfile.ZIP_STORED)
        for file in files:
            member = zipfile.ZipInfo(f"{IMAGE_FOLDER}/{series_folder.name}/{file.name}", _MEMBER_TIME)
            member.external_attr = _MEMBER_MODE
            member.create_system = 3
            self._zip.writestr(member, file.read_bytes())
        self._slices += len(files)

    def _finish(self) -> None:
        if self._zip is None:
            return
        self._zip.close()
        self._part_path().rename(self._folder / self._name())
        self._zip, self._slices = None, 0

    def _name(self) -> str:
        return f"{IMAGE_FOLDER}_{self._number:02d}.zip"

    def _part_path(self) -> Path:
        return self._folder / f".{self._name()}.part"
