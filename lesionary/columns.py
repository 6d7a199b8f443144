"""What tables are made of: columns with units and meanings, and the few kinds of column most tables have.

The tables themselves are in `lesionary/schema.py` and `lesionary/detection_tables.py`.
"""

from dataclasses import dataclass
from functools import cache

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Column:
    """One column: what it holds, in which unit, and whether it may be null."""

    name: str
    type: pa.DataType
    meaning: str
    unit: str = ""
    nullable: bool = False

    def field(self) -> pa.Field:
        """The Arrow field, unit and meaning in its metadata."""
        metadata = {"meaning": self.meaning} | ({"unit": self.unit} if self.unit else {})
        return pa.field(self.name, self.type, nullable=self.nullable, metadata=metadata)


@cache
def _arrow_schema(name: str, version: int, columns: tuple[Column, ...]) -> pa.Schema:
    # Asked for with every few rows that are written.
    metadata = {"table": name, "version": str(version)}
    return pa.schema([column.field() for column in columns], metadata=metadata)


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the lake."""

    name: str
    version: int
    meaning: str
    key: tuple[str, ...]
    """Columns that together name a row; no two live rows share them. Empty: rows need no name."""
    columns: tuple[Column, ...]
    unit_column: str
    """Names the unit of work a row came from; replacing a unit replaces all its rows."""

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema, with the table's name and version in its metadata."""
        return _arrow_schema(self.name, self.version, self.columns)

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names in order."""
        return tuple(column.name for column in self.columns)


TEXT = pa.string()
COUNT = pa.int32()
REAL = pa.float64()
FLAG = pa.bool_()
FLAGS = pa.list_(pa.string())


def text(name: str, meaning: str, *, nullable: bool = False) -> Column:
    """A column of text."""
    return Column(name, TEXT, meaning, nullable=nullable)


def real(name: str, unit: str, meaning: str, *, nullable: bool = True) -> Column:
    """A column of real numbers."""
    return Column(name, REAL, meaning, unit, nullable)


def count(name: str, meaning: str, *, unit: str = "", nullable: bool = False) -> Column:
    """A column of whole numbers."""
    return Column(name, COUNT, meaning, unit, nullable)


SERIES_ID = text("series_id", "the series, with its source's namespace in front")
PATIENT_ID = text("patient_id", "the patient's pseudonym, with its source's namespace in front")
STUDY_ID = text("study_id", "the study (one visit to the scanner)")
MODEL_ID = text("model_id", "the model of the lake's folder models that said it")
CREATED_AT = Column("created_at", pa.timestamp("us", tz="UTC"), "when it was made")
