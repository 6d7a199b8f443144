"""`lesionary patients`: patients beside each other."""

from dataclasses import asdict
from typing import Annotated

import typer

from cli.options import (
    DEFAULT_LAKE,
    AsOfOption,
    CsvOption,
    FeatureSetOption,
    Format,
    JsonOption,
    LakeOption,
    StoreOption,
    WhereOption,
    chosen_format,
)
from cli.reading import reading
from cli.render import write_json, write_rows

app = typer.Typer(help="Patients beside each other.", no_args_is_help=True)


@app.command()
def similar(
    patient: Annotated[str, typer.Argument(metavar="PATIENT", help="Its pseudonym, such as dl-000047.")],
    k: Annotated[int, typer.Option("-k", min=1, max=1_000, help="How many patients.")] = 10,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Print the pairs of lesions that make each distance instead.")
    ] = False,
    where: WhereOption = None,
    as_of: AsOfOption = None,
    feature_set: FeatureSetOption = "location+size",
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    lake: LakeOption = DEFAULT_LAKE,
    store: StoreOption = None,
) -> None:
    """Find patients whose lesions are like this patient's.

    The distance of two patients is symmetric: the mean distance of each one's lesions to the nearest of the other's,
    averaged over the two. --where and --as-of narrow both sides.
    """
    from store.patients import similar_patients

    form = chosen_format(as_json=as_json, as_csv=as_csv)
    with reading(lake, store) as (path, connection):
        answer = similar_patients(connection, path, patient, feature_set=feature_set, k=k, where=where, as_of=as_of)
    if form is Format.JSON:
        write_json(
            {
                "patient_id": patient,
                "feature_set": answer.feature_set.feature_set_id,
                "lesions": answer.lesions,
                "similar": [asdict(hit) for hit in answer.hits],
            }
        )
    elif pairs:
        columns = ("rank", "patient_id", "of", "lesion_id", "nearest_lesion_id", "distance", "adds")
        write_rows(
            columns,
            [
                (hit.rank, hit.patient_id, pair.of, pair.lesion_id, pair.nearest_lesion_id, pair.distance, pair.adds)
                for hit in answer.hits
                for pair in hit.pairs
            ],
            form,
        )
    else:
        rows = [(hit.rank, hit.distance, hit.patient_id, hit.lesions) for hit in answer.hits]
        write_rows(("rank", "distance", "patient_id", "lesions"), rows, form)
