"""What a trained network says of its lesions, out of the model into the lake: types, or categories and their sizes."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from lesionary.lake import Lake
    from lesionary.models import ModelCard

_FILE = "labels.arrow"
_LABELLING_KINDS = frozenset({"triplet", "categoriser"})


def land_labels(lake: "Lake", card: "ModelCard") -> int:
    """Take a model's labels into the lake, unless they are there; how many were taken.

    Args:
        lake: that holds the model.
        card: the model's.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from lesionary.models import read_model_file
    from lesionary.results import write_results
    from lesionary.schema import LABELS

    if card.kind not in _LABELLING_KINDS:
        return 0
    there = lake.read(LABELS.name, columns=["model_id"], where=pc.field("model_id") == card.model_id)
    if there.num_rows:
        return 0
    with pa.ipc.open_file(io.BytesIO(read_model_file(lake, card, _FILE))) as held:
        said = held.read_all()
    if not said.num_rows:
        return 0
    model = pa.array([card.model_id] * said.num_rows, pa.string())
    rows = pa.table({"model_id": model, **{name: said[name] for name in said.column_names}})
    rows = rows.select(list(LABELS.column_names)).cast(LABELS.schema)
    if card.kind == "categoriser":
        # Before the labels: who finds these there takes the model as landed.
        _land_categories(lake, card, rows)
    write_results(lake, card.model_id, {LABELS.name: [rows]})
    return int(said.num_rows)


def _land_categories(lake: "Lake", card: "ModelCard", labels: "pa.Table") -> None:
    from lesionary.categories import count_categories

    count_categories(lake, card.model_id, labels, int(card.metrics["categories"]))
