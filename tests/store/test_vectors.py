"""Vectors beside the database are whole or made again; indexes find what an exact search finds."""

import os

import numpy as np
import pytest
from small_stores import MADE_AT, make_store

from store.database import open_draft, open_reader
from store.features import LesionsVersion, find_set, open_vectors, refresh_sets
from store.indexes import ApproximateIndex, write_index
from store.nearest import nearest, squared_lengths
from store.similar import Searcher
from store.vectors import (
    EXACT_BYTES,
    INDEX_FILE,
    LENGTHS_FILE,
    MATRIX_FILE,
    ROWS_FILE,
    IndexKind,
    is_whole,
    kind_for,
    read_vectors,
)
from store.versions import files_folder, writing

NAMES = [f"t-{number}" for number in range(1, 31)]


@pytest.fixture
def path(tmp_path):
    generator = np.random.default_rng(1)
    lesions = [{"lesion_id": name, "patient_id": f"t-p{at % 7}"} for at, name in enumerate(NAMES)]
    vectors = {"made": {name: generator.normal(size=12) for name in NAMES[:25]}}
    return make_store(tmp_path / "features.duckdb", lesions, vectors)


def answers(path):
    with open_reader(path) as connection:
        searcher = Searcher(connection, path, "made")
        queries, _, _ = searcher.queries_for(NAMES[:25])
        found = searcher.search(queries, 3)
        return [[(hit.lesion_id, hit.distance) for hit in hits] for hits in searcher.hits(found, 3)]


def folder_of(path):
    with open_reader(path) as connection:
        found = find_set(connection, "made")
        return files_folder(path) / found.vector_folder, found


def damage(file, how):
    if how == "missing":
        file.unlink()
    elif how == "torn":
        file.write_bytes(file.read_bytes()[:-5])
    elif how == "empty":
        file.write_bytes(b"")
    else:
        status = file.stat()
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(content)
        # Even when somebody sets the time back.
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("name", [MATRIX_FILE, ROWS_FILE, LENGTHS_FILE])
@pytest.mark.parametrize("how", ["missing", "torn", "empty", "one bit"])
def test_damaged_files_are_made_again_and_never_answered_from(path, name, how):
    before = answers(path)
    folder, found = folder_of(path)
    assert is_whole(folder, found.checksums)
    damage(folder / name, how)
    assert not is_whole(folder, found.checksums)

    assert answers(path) == before
    assert is_whole(folder, found.checksums)


def test_vectors_of_another_store_are_not_taken_for_ours(path, tmp_path):
    before = answers(path)
    other = make_store(
        tmp_path / "other.duckdb",
        [{"lesion_id": name} for name in NAMES],
        {"made": {name: [1.0] * 12 for name in NAMES}},
    )
    folder, _ = folder_of(path)
    theirs, _ = folder_of(other)
    for file in theirs.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())

    assert answers(path) == before


def test_store_whose_vectors_cannot_be_written_still_answers(path, monkeypatch):
    before = answers(path)
    folder, _ = folder_of(path)
    (folder / MATRIX_FILE).write_bytes(b"")

    def refuse(*_arguments, **_options):
        raise PermissionError

    # Root may write anywhere, so a read-only folder cannot be had by its mode.
    monkeypatch.setattr("store.features.write_vectors", refuse)

    assert answers(path) == before


def test_copied_store_answers_without_its_folder(path, tmp_path):
    before = answers(path)
    copied = tmp_path / "elsewhere" / "copy.duckdb"
    copied.parent.mkdir()
    copied.write_bytes(path.read_bytes())

    assert answers(copied) == before


def test_rows_name_lesions_and_their_patients(path):
    with open_reader(path) as connection:
        vectors = open_vectors(connection, path, find_set(connection, "made"))
        known = dict(connection.execute("SELECT lesion_number, patient_id FROM lake_rows.lesion_features").fetchall())
    assert len(vectors.lesions) == 25
    assert np.all(np.diff(vectors.lesions) > 0)
    by_code = {}
    for lesion, code in zip(vectors.lesions.tolist(), vectors.patients.tolist(), strict=True):
        assert by_code.setdefault(code, known[lesion]) == known[lesion]
    assert len(by_code) == 7


@pytest.mark.parametrize(
    ("rows", "dimension", "wanted", "kind"),
    [
        (32_735, 1_024, "auto", "exact"),
        (EXACT_BYTES // 1024, 256, "auto", "exact"),
        (EXACT_BYTES // 1024 + 1, 256, "auto", "ivf"),
        (1_000_000, 256, "auto", "ivf"),
        (1_000_000, 256, "hnsw", "hnsw"),
        (1_000_000, 256, "exact", "exact"),
        (2_000, 8, "ivf", "ivf"),
        (999, 8, "ivf", "exact"),
        (0, 8, "auto", "exact"),
    ],
)
def test_rule_for_the_kind_of_index(rows, dimension, wanted, kind):
    assert kind_for(rows, dimension, IndexKind(wanted)) == kind


def test_without_a_wanted_kind_sets_keep_theirs_and_new_ones_go_by_their_size(tmp_path):
    names = [f"t-{at:04d}" for at in range(1_000)]
    vectors = dict(zip(names, np.random.default_rng(4).normal(size=(1_000, 4)), strict=True))
    path = make_store(tmp_path / "f.duckdb", [{"lesion_id": name} for name in names], {"made": vectors}, IndexKind.IVF)
    make_store(path, [], {"other": vectors}, index=None)

    with open_reader(path) as connection:
        kinds = {name: find_set(connection, name).index_kind for name in ("made", "size", "other")}
    assert kinds == {"made": "ivf", "size": "ivf", "other": "exact"}


def grown_store(path, rows, kind):
    """A store of `rows` lesions with an index, and then of half as many more; all their vectors."""
    matrix = np.random.default_rng(6).normal(size=(rows + rows // 2, 12)).astype(np.float32)
    for part in (range(rows), range(rows, len(matrix))):
        names = [f"t-{at:05d}" for at in part]
        lesions = [{"lesion_id": name, "patient_id": f"p{at % 90}"} for name, at in zip(names, part, strict=True)]
        make_store(path, lesions, {"made": dict(zip(names, matrix[part], strict=True))}, index=kind)
    return matrix


@pytest.mark.parametrize("kind", [IndexKind.EXACT, IndexKind.IVF, IndexKind.HNSW])
def test_new_vectors_join_those_that_are_there(tmp_path, kind, monkeypatch):
    fetched = []

    def read(connection, table, dimension, members, known=None):
        fetched.append((table, 0 if known is None else len(known.lesions)))
        return read_vectors(connection, table, dimension, members, known)

    monkeypatch.setattr("store.features.read_vectors", read)
    path = tmp_path / "f.duckdb"
    # Twelve hundred and eighteen hundred rows have equally many lists.
    matrix = grown_store(path, 1_200, kind)

    assert [known for table, known in fetched if "made" in table] == [0, 1_200]
    with open_reader(path) as connection:
        searcher = Searcher(connection, path, "made")
        assert np.array_equal(searcher.vectors.matrix, matrix)
        assert (searcher.vectors.index_file is None) == (kind is IndexKind.EXACT)
        queries = [searcher.query_for_vector(row) for row in matrix[::40].tolist()]
        found = searcher.search(queries, 1)
    assert [one.rows[0] for one in found] == list(range(0, len(matrix), 40))


def test_index_is_built_anew_when_it_would_have_more_lists(tmp_path):
    first, second = (tmp_path / name for name in ("a.faiss", "b.faiss"))
    matrix = np.random.default_rng(2).normal(size=(6_000, 8)).astype(np.float32)
    write_index(IndexKind.IVF, matrix[:1_200], first)
    write_index(IndexKind.IVF, matrix, second, grown_from=first)

    assert ApproximateIndex(second).settings()["lists"] > ApproximateIndex(first).settings()["lists"]
    candidates = ApproximateIndex(second).candidates(matrix[5_990:], 1)
    assert [row in found for row, found in enumerate(candidates, 5_990)] == [True] * 10


def test_changed_vectors_are_read_again(path):
    with writing(path), open_draft(path) as (connection, draft):
        # A shard of the lake that takes another's place.
        connection.execute(
            """UPDATE features."made@1" SET vector = list_reverse(vector::FLOAT[])::FLOAT[12], shard = shard + 1"""
        )
        draft.vector_folders += refresh_sets(connection, draft.folder, LesionsVersion(2, MADE_AT), IndexKind.AUTO)
    with open_reader(path) as connection:
        vectors = open_vectors(connection, path, find_set(connection, "made"))
        stored = dict(
            connection.execute(
                'SELECT lesion_number, vector FROM lake_rows.lesion_features JOIN features."made" USING (lesion_id)'
            ).fetchall()
        )

    assert [stored[number] for number in vectors.lesions.tolist()] == [tuple(row) for row in vectors.matrix.tolist()]


@pytest.mark.parametrize("how", ["missing", "torn", "one bit"])
def test_without_its_index_a_set_is_scanned_until_the_next_sync(tmp_path, how):
    path = tmp_path / "f.duckdb"
    matrix = grown_store(path, 1_200, IndexKind.IVF)
    folder, found = folder_of(path)
    damage(folder / INDEX_FILE, how)

    with open_reader(path) as connection:
        searcher = Searcher(connection, path, "made")
        (nearest_one,) = searcher.search([searcher.query_for_vector(matrix[7].tolist())], 1)
        assert searcher.vectors.index_file is None
    assert nearest_one.rows.tolist() == [7]
    make_store(path, [], index=IndexKind.IVF)
    folder, found = folder_of(path)
    assert (folder / INDEX_FILE).exists()
    assert is_whole(folder, found.checksums)


@pytest.mark.parametrize("kind", [IndexKind.IVF, IndexKind.HNSW])
def test_approximate_index_finds_nearly_all_neighbours_and_answers_from_the_vectors(tmp_path, kind):
    generator = np.random.default_rng(5)
    centers = generator.normal(size=(40, 16))
    matrix = (centers[generator.integers(40, size=3_000)] + 0.4 * generator.normal(size=(3_000, 16))).astype(np.float32)
    names = [f"t-{at}" for at in range(len(matrix))]
    patients = generator.integers(300, size=len(matrix))
    lesions = [{"lesion_id": name, "patient_id": f"p{who}"} for name, who in zip(names, patients, strict=True)]
    path = make_store(tmp_path / "f.duckdb", lesions, {"made": dict(zip(names, matrix, strict=True))}, index=kind)
    exact = make_store(tmp_path / "e.duckdb", lesions, {"made": dict(zip(names, matrix, strict=True))})

    asked = names[:200]
    found, condition = {}, "hash(lesion_id) % 50 = 0"
    for file in (path, exact):
        with open_reader(file) as connection:
            searcher = Searcher(connection, file, "made")
            assert (searcher.vectors.index_file is None) == (file is exact)
            queries, _, _ = searcher.queries_for(asked)
            free = searcher.hits(searcher.search(queries, 10), 10)
            narrowed = searcher.search(queries, 10, allowed=searcher.allowed_rows(condition))
            found[file] = (free, searcher.hits(narrowed, 10))

    for answers_, question in zip(found[path][0], queries, strict=True):
        assert len(answers_) == 10
        assert all(patients[int(hit.lesion_id[2:])] != patients[int(question.lesion_id[2:])] for hit in answers_)
    shared = sum(
        len({hit.lesion_id for hit in ours} & {hit.lesion_id for hit in theirs})
        for ours, theirs in zip(found[path][0], found[exact][0], strict=True)
    )
    assert shared >= 0.98 * 10 * len(asked)
    # With a condition the answer is exact whatever the index.
    assert found[path][1] == found[exact][1]


def test_index_says_what_it_was_built_with(tmp_path):
    matrix = np.random.default_rng(0).normal(size=(2_000, 8)).astype(np.float32)
    write_index(IndexKind.IVF, matrix, tmp_path / INDEX_FILE)
    index = ApproximateIndex(tmp_path / INDEX_FILE)

    settings = index.settings()

    assert settings["lists"] >= settings["lists_visited"] >= 1
    found = index.candidates(matrix[:20], 1)
    truth = nearest(matrix, squared_lengths(matrix), matrix[:20], 1)
    assert all(one.rows[0] in row for one, row in zip(truth, found, strict=True))


@pytest.mark.parametrize("dimension", [1, 2, 3, 6, 7])
def test_index_takes_vectors_of_any_dimension(tmp_path, dimension):
    matrix = np.random.default_rng(0).normal(size=(1_500, dimension)).astype(np.float32)
    write_index(IndexKind.IVF, matrix, tmp_path / INDEX_FILE)

    found = ApproximateIndex(tmp_path / INDEX_FILE).candidates(matrix[:50], 10)

    truth = nearest(matrix, squared_lengths(matrix), matrix[:50], 10)
    shared = sum(len(np.intersect1d(one.rows[:10], row)) for one, row in zip(truth, found, strict=True))
    assert shared >= 0.98 * 500
