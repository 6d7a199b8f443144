"""The questions of `bench_sql.py` as they are put to the release's table with pandas; nothing else is imported.

python benchmarks/pandas_questions.py QUESTION TABLE
"""

import sys
from typing import Any

import pandas as pd

Rows = list[tuple[Any, ...]]

_TYPES = {1: "bone", 2: "abdomen", 3: "mediastinum", 4: "liver", 5: "lung", 6: "kidney", 7: "soft_tissue", 8: "pelvis"}


def read_table(table: str) -> pd.DataFrame:
    """The release's table with what the questions need as numbers."""
    read = pd.read_csv(table)
    long_px = read["Lesion_diameters_Pixel_"].str.split(",", n=1).str[0].astype(float)
    spacing = read["Spacing_mm_px_"].str.split(",", n=1).str[0].astype(float)
    read["long_mm"] = long_px * spacing
    return read


def types(table: pd.DataFrame) -> Rows:
    """Lesions of each type and their mean diameter."""
    found = table.groupby("Coarse_lesion_type")["long_mm"].agg(["count", "mean"])
    return sorted((_TYPES[kind], int(one["count"]), float(one["mean"])) for kind, one in found.iterrows())


def patient(table: pd.DataFrame) -> Rows:
    """One patient's lesions, by study and diameter."""
    some = table[table["Patient_index"] == 1234].sort_values(["Study_index", "long_mm"])
    return list(zip(some["Study_index"].tolist(), some["long_mm"].tolist(), strict=True))


def growth(table: pd.DataFrame) -> Rows:
    """The ten patients whose largest lesion grew most from their first study to their last."""
    largest = table.groupby(["Patient_index", "Study_index"])["long_mm"].max().reset_index()
    by_patient = largest.sort_values("Study_index").groupby("Patient_index")["long_mm"]
    return list((by_patient.last() - by_patient.first()).nlargest(10).items())


def condition(table: pd.DataFrame) -> Rows:
    """How many patients have three studies or more, and a liver lesion above 20 mm."""
    studies = table.groupby("Patient_index")["Study_index"].nunique()
    large = table["Patient_index"][(table["Coarse_lesion_type"] == 4) & (table["long_mm"] > 20)]
    return [(int(large[large.isin(studies.index[studies >= 3])].nunique()),)]


QUESTIONS = {"types": types, "patient": patient, "growth": growth, "condition": condition}

if __name__ == "__main__":
    for row in QUESTIONS[sys.argv[1]](read_table(sys.argv[2])):
        print(*row, sep="\t")
