"""What a lake or a store holds, as one digest: equal for equal content, whatever the shards and whoever wrote them."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from lesionary.lake import Lake
from lesionary.schema import TABLES

# Who wrote a row and when. Pixels stand for themselves as digests, which `verify --deep` compares with them.
_OF_THE_RUN = frozenset(
    {"ingest_id", "lesion_ingest_id", "created_at", "model_created_at", "lesions_version", "pixels"}
)
# They differ in their last bits with the batch they were computed in (`vectors_of`).
_NOT_TO_THE_BIT = frozenset({"vector"})
# Models and sets are numbered; a writer that is killed may leave a number unused.
_NUMBERS = frozenset({"feature_set_id", "model_id", "version"})
_ORIGIN = re.compile(r"-(annotations|files)-[0-9a-f]{8}")


def content_digest(lake, *, moved=False, renumbered=False, to_the_bit=False):
    """Digest of every row of a lake (or of the lake at a URL).

    With `moved`, also whatever follows from where the source lay is left out: two copies of one source agree. With
    `renumbered`, so are the numbers of models and feature sets. Vectors count with `to_the_bit` alone.
    """
    lake = lake if isinstance(lake, Lake) else Lake.open(str(lake))
    ignored = _OF_THE_RUN | ({"fingerprint"} if moved else set()) | (_NUMBERS if renumbered else set())
    ignored |= set() if to_the_bit else _NOT_TO_THE_BIT
    digest = hashlib.sha256()
    for name, table in TABLES.items():
        kept = [column for column in table.column_names if column not in ignored]
        rows = (json.dumps(row, default=str) for row in lake.read(name, columns=kept).to_pylist())
        rows = sorted(_ORIGIN.sub(r"-\1", row) if moved else row for row in rows)
        digest.update("\n".join([name, *rows]).encode())
    return digest.hexdigest()


def stray_shards(lake):
    """Files in the tables' folders that no newest version names, as table/file."""
    lake = lake if isinstance(lake, Lake) else Lake.open(str(lake))
    strays = []
    for name in TABLES:
        live = {shard.path for shard in lake.shards(name)[1]}
        files = (path.name for path in Path(lake.table_folder(name).path).glob("*") if path.is_file())
        strays += [f"{name}/{file}" for file in files if file not in live]
    return strays


def vectors_of(lake, set_id="triplet@1"):
    """Lesion to vector of a feature set; fails where a lesion stands twice."""
    lake = lake if isinstance(lake, Lake) else Lake.open(str(lake))
    rows = lake.read("embeddings", where=pc.field("feature_set_id") == set_id).to_pylist()
    found = {row["lesion_id"]: np.array(row["vector"], np.float32) for row in rows}
    assert len(found) == len(rows), f"{len(rows) - len(found)} vectors of {set_id} stand twice"
    return found
