"""What an answer was made with: a feature set, the model behind it, the lake's versions and our own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lesionary import __version__
from store.features import FeatureSet

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a report was made with."""

    feature_set: str
    model: str
    lake_versions: Mapping[str, int]
    lesionary: str


def lineage_of(connection: "duckdb.DuckDBPyConnection", feature_set: FeatureSet) -> Lineage:
    """What a report on this set is made with."""
    return Lineage(feature_set.feature_set_id, feature_set.model_id, lake_versions(connection), __version__)


def lake_versions(connection: "duckdb.DuckDBPyConnection") -> dict[str, int]:
    """Versions of the lake's tables that the store holds, for lineage; a table that the lake lacks is left out."""
    found = connection.execute(
        "SELECT table_name, lake_version FROM store.synced WHERE lake_version >= 0 ORDER BY table_name"
    ).fetchall()
    return dict(found)
