"""Faults that lie on the disk before a command runs: damaged shards, logs, checkpoints, stores and vectors.

The command either does not need what is damaged, or says so; `lake verify` names it, `lake repair` takes it out, and
the usual commands bring it back.
"""

import shutil
from pathlib import Path

from deltalake import DeltaTable
from faults import checks
from faults.damage import WAYS, live_shards, log_entries, store_files
from faults.worlds import answers_of, rerun_words, same_vectors

_QUESTION = ("similar", "{lesion}", "--feature-set", "location", "--json")


def spoil_shard(stage, way):
    """A shard of any table."""
    shards = live_shards(stage.folder / "lake")
    table = stage.rng.choice(sorted(shards))
    file = stage.rng.choice(sorted(shards[table]))
    what = WAYS[way](file, stage.rng)
    _runs_or_refuses(stage, naming=(file.name, f"table {table}"))
    if file.exists() and file not in live_shards(stage.folder / "lake").get(table, []):
        what += ", then replaced"
    elif way != "flip_bit" or file.exists():
        _verify_names(stage, (file.name,))
    _repair(stage)
    return f"{table}/{file.name}: {what}"


def spoil_log(stage, way):
    """An entry of a table's log; the newest one is likeliest to be torn."""
    entries = {table: files for table, files in log_entries(stage.folder / "lake").items() if files}
    table = stage.rng.choice(sorted(entries))
    file = entries[table][-1] if stage.rng.random() < 0.6 else stage.rng.choice(entries[table])
    what = WAYS[way](file, stage.rng)
    _runs_or_refuses(stage, naming=(f"table {table}",), unnoticed=way == "delete")
    _repair(stage)
    return f"{table}/{file.name}: {what}"


def spoil_checkpoint(stage, way):
    """A checkpoint of a log, or the file that points at it."""
    tables = sorted(entry for entry in Path(stage.folder, "lake", "tables").iterdir())
    table = stage.rng.choice(tables)
    DeltaTable(str(table)).create_checkpoint()
    files = [*table.glob("_delta_log/*.checkpoint.parquet"), table / "_delta_log" / "_last_checkpoint"]
    file = stage.rng.choice(sorted(files))
    what = WAYS[way](file, stage.rng)
    _runs_or_refuses(stage, naming=(f"table {table.name}",))
    _repair(stage)
    return f"{table.name}/{file.name}: {what}"


def spoil_store(stage, way):
    """The newest version of the store."""
    file, _ = store_files(stage.folder / "lake")
    what = WAYS[way](file, stage.rng)
    _answers_rightly(stage)
    _runs_or_refuses(stage)
    # As the message says: delete it and sync; the lake has every row.
    (stage.folder / "lake" / "features.duckdb").unlink(missing_ok=True)
    _everything_again(stage)
    return f"{file.name}: {what}"


def spoil_vectors(stage, way):
    """A file of vectors beside the store: made again by whoever needs it."""
    _, files = store_files(stage.folder / "lake")
    file = stage.rng.choice(files)
    what = WAYS[way](file, stage.rng)
    _answers_rightly(stage, must=True)
    stage.go_on()
    return f"{file.parent.name}/{file.name}: {what}"


def _runs_or_refuses(stage, naming=(), *, unnoticed=False):
    """The command ends with the right answers, or refuses in one line that names what is damaged."""
    done = stage.world.run(rerun_words(stage.operation, stage.folder), stage.folder)
    if done.code != 0:
        stage.note(checks.clear_refusal(done, naming=() if unnoticed else naming), "with the damage")
        return
    if unnoticed:
        return
    needs_store = stage.operation.words[0] in {"sync", "match"}
    answers = answers_of(stage.folder, store_too=needs_store)
    wrong = [] if same_vectors(answers["vectors"], stage.calm.vectors) else ["vectors"]
    wrong += ["models"] if answers["weights"] != stage.calm.weights else []
    if needs_store and answers["store"] != stage.calm.store:
        wrong.append("the store")
    stage.note([f"exit code 0 and wrong: {one}" for one in wrong], "with the damage")


def _verify_names(stage, names):
    done = stage.world.run(("lake", "verify", "--deep"), stage.folder)
    if done.code == 0 or done.has_traceback or not any(name in done.out + done.said for name in names):
        stage.note([f"exit code {done.code}: {(done.out + done.said)[-500:]!r}"], "lake verify")


def _answers_rightly(stage, *, must=False):
    """A question of the store is answered as before, or refused in one line."""
    whole = stage.folder.with_name(f"{stage.folder.name}-whole")
    shutil.copytree(stage.world.before(stage.operation.before), whole, symlinks=True)
    asked = tuple(word.format(lesion="dl-1") for word in _QUESTION)
    wanted, done = stage.world.run(asked, whole), stage.world.run(asked, stage.folder)
    shutil.rmtree(whole)
    assert wanted.code == 0, wanted.said
    if done.code != 0 and not must:
        stage.note(checks.clear_refusal(done), "a question")
    elif done.out != wanted.out:
        stage.note([f"another answer, exit code {done.code}: {done.said[-300:]!r}"], "a question")


def _repair(stage):
    done = stage.world.run(("lake", "repair"), stage.folder)
    if done.code != 0 or done.has_traceback:
        stage.note([f"exit code {done.code}; it said {done.said[-500:]!r}"], "lake repair")
    _everything_again(stage)


def _everything_again(stage):
    for words in (*stage.operation.before, rerun_words(stage.operation, stage.folder)):
        done = stage.world.run(words, stage.folder)
        if done.code != 0 or done.has_traceback:
            stage.note([f"exit code {done.code}; it said {done.said[-500:]!r}"], f"{words[0]} again")
            return
    # A sync on the way takes in more than it did the first time.
    store_too = stage.operation.words[0] in {"sync", "match"}
    stage.note(checks.ends_as_if_nothing_had_happened(stage.folder, stage.calm, store_too=store_too), "at the end")


LYING = {
    **{f"shard {way}": (spoil_shard, way) for way in WAYS},
    **{f"log {way}": (spoil_log, way) for way in WAYS},
    **{f"checkpoint {way}": (spoil_checkpoint, way) for way in ("truncate", "flip_bit")},
    **{f"store {way}": (spoil_store, way) for way in WAYS},
    **{f"vectors {way}": (spoil_vectors, way) for way in WAYS},
}
