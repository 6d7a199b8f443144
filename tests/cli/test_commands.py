"""The commands as a person runs them: what they print, where errors end, what they refuse."""

import csv
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cli.main import main
from cli.options import Format
from cli.render import write_rows


@pytest.fixture
def filled(run, release):
    """A lake and a store made by the commands themselves."""
    assert run("ingest", release)[0] == 0
    assert run("sync")[0] == 0
    return run


def test_ingest_prints_counts_that_add_up(run, release):
    code, out, _ = run("ingest", release)

    assert code == 0
    assert "rows and marks:          4 found = 3 accepted + 1 flagged + 0 quarantined" in out
    assert "files:                  15 found = 15 accepted + 0 flagged + 0 quarantined" in out
    assert "flags: image_missing 1" in out


def test_ingest_twice_says_that_there_is_nothing_to_do(run, release):
    run("ingest", release)

    code, _, notes = run("ingest", release)

    assert code == 0
    assert "nothing to do: all 6 units were in the lake already" in notes


def test_dry_run_prints_the_plan_and_makes_nothing(run, release, tmp_path):
    code, out, _ = run("ingest", release, "--dry-run", "--json", "--workers", 3)

    plan = json.loads(out)
    assert code == 0
    assert (plan["units to do"], plan["images to read"], plan["workers"], plan["would write to"]) == (6, 15, 3, "lake")
    assert plan["bytes to read"] == sum(path.stat().st_size for path in release.rglob("*.png"))
    assert not (tmp_path / "lake").exists()


def test_ingest_keeps_its_record_with_where_each_setting_came_from(run, release, tmp_path, monkeypatch):
    (tmp_path / "lesionary.toml").write_text("[ingest]\nshard_mb = 8\n")
    monkeypatch.setenv("LESIONARY_INGEST_COMMIT_SECONDS", "7")

    summary = json.loads(run("ingest", release, "--workers", 1, "--json")[1])

    record = json.loads(Path("lake/ingests", f"{summary['ingest_id']}.json").read_text())
    assert record["settings"]["shard_mb"] == {"from": "file", "value": 8}
    assert record["settings"]["commit_seconds"] == {"from": "environment", "value": 7}
    assert record["settings"]["workers"] == {"from": "flag", "value": 1}
    assert record["tally"] == summary["tally"]


def test_settings_can_switch_annotations_only_and_a_flag_overrules(run, release, tmp_path):
    (tmp_path / "lesionary.toml").write_text("[ingest]\nannotations_only = true\n")

    assert json.loads(run("ingest", release, "--json")[1])["slices_written"] == 0
    assert json.loads(run("ingest", release, "--json", "--with-images")[1])["slices_written"] == 15


def test_official_rows_go_in_and_questions_come_out(run, official_test_rows):
    code, out, _ = run("ingest", official_test_rows, "--annotations-only")
    run("sync")

    assert code == 0
    assert "4927 found = 0 accepted + 4927 flagged + 0 quarantined" in out
    answer = run("sql", "--csv", "SELECT count(*) FROM lesion_features WHERE lesion_type = 'lung'")[1]
    assert answer.splitlines()[1] == "1100"


def test_sql_prints_a_table_csv_and_json(filled):
    question = "SELECT lesion_id, long_mm, lesion_type, flags FROM lesions ORDER BY lesion_id"

    table = filled("sql", question)[1].splitlines()
    rows = list(csv.DictReader(io.StringIO(filled("sql", question, "--csv")[1])))
    values = json.loads(filled("sql", question, "--json")[1])

    assert table[0].split() == ["lesion_id", "long_mm", "lesion_type", "flags"]
    assert table[2].split() == ["dl-1", "16", "lung", "·"]
    assert rows[3] == {"lesion_id": "dl-4", "long_mm": "16.0", "lesion_type": "lung", "flags": '["image_missing"]'}
    assert values[2] == {"lesion_id": "dl-3", "long_mm": 16.0, "lesion_type": None, "flags": []}


def test_json_is_valid_and_whole_whatever_the_engine_answers(filled):
    columns = "1 AS a, 2 AS a, 3 AS a_1, ['nan'::DOUBLE, 1] AS list, {'x': 'inf'::FLOAT} AS struct"
    question = f"SELECT {columns}, MAP {{DATE '2020-01-02': 'nan'::DOUBLE}} AS map"

    code, out, _ = filled("sql", question, "--json")
    assert code == 0
    record = {"a": 1, "a_2": 2, "a_1": 3, "list": [None, 1.0], "struct": {"x": None}, "map": {"2020-01-02": None}}
    assert json.loads(out, parse_constant=pytest.fail) == [record]
    row = next(csv.DictReader(io.StringIO(filled("sql", question, "--csv")[1])))
    assert [json.loads(row[name]) for name in ("list", "struct", "map")] == [
        record[name] for name in ("list", "struct", "map")
    ]


def test_import_says_how_many_vectors_are_of_lesions_that_the_store_knows(filled, tmp_path):
    pq.write_table(pa.table({"lesion_id": ["dl-1", "xx-1", "xx-2"], "vector": [[1.0]] * 3}), tmp_path / "v.parquet")

    code, _, notes = filled("features", "import", "made", tmp_path / "v.parquet", "--model", "m")

    assert code == 0
    assert notes == "made@1: 3 vectors of 1 numbers, 1 of them of lesions in the store\n"


@pytest.mark.parametrize("source", ["names.txt", "-"])
def test_list_of_lesions_may_come_from_an_editor_that_marks_its_encoding(filled, tmp_path, source):
    content = "\ufeffdl-1\r\n\r\ndl-2\r\n"
    (tmp_path / "names.txt").write_bytes(content.encode())

    code, out, notes = filled("similar", "--from", source, "--any-patient", "-k", 1, "--csv", stdin=content)

    assert (code, notes) == (0, "")
    assert [row["query"] for row in csv.DictReader(io.StringIO(out))] == ["dl-1", "dl-2"]


def test_sql_writes_parquet_and_does_not_overwrite_it(filled, tmp_path):
    question = "SELECT lesion_id, box_xyxy_px FROM lesions ORDER BY 1"

    assert filled("sql", question, "--parquet", "a.parquet")[0] == 0
    assert pq.read_table(tmp_path / "a.parquet")["lesion_id"].to_pylist() == ["dl-1", "dl-2", "dl-3", "dl-4"]
    code, _, error = filled("sql", question, "--parquet", "a.parquet")
    assert (code, error) == (2, "a.parquet: the file exists; add --force to overwrite it")
    assert filled("sql", question, "--parquet", "a.parquet", "--force")[0] == 0


def test_rows_that_cannot_be_computed_leave_no_parquet_file(filled, tmp_path):
    question = "SELECT CAST(CASE WHEN i = 400000 THEN 'x' ELSE '1' END AS INTEGER) FROM range(500000) r(i)"

    code, _, error = filled("sql", question, "--parquet", "a.parquet")

    assert code == 2
    assert "onver" in error
    assert "\n" not in error
    assert not (tmp_path / "a.parquet").exists()


def test_sql_without_a_question_reads_them_from_stdin(filled):
    code, out, _ = filled("sql", "--csv", stdin="SELECT 1 AS a;\nSELECT\n 2 AS b;\n.tables\n.quit\nSELECT 3;\n")

    assert code == 0
    assert out.splitlines()[:4] == ["a", "1", "b", "2"]
    assert "lesion_features" in out
    assert "3" not in out.splitlines()


def test_sql_takes_one_form(filled):
    code, _, error = filled("sql", "SELECT 1", "--csv", "--json")

    assert code == 2
    assert "an answer has one form" in error


def test_show_prints_and_draws_one_lesion(filled, tmp_path):
    code, out, _ = filled("show", "dl-1", "--picture", "a.png")

    assert code == 0
    assert "long_mm" in out
    picture = Image.open(tmp_path / "a.png")
    assert picture.size == (1024, 1054)
    assert {(255, 80, 80), (80, 200, 255), (255, 220, 60)} <= {colour for _, colour in picture.getcolors(1 << 24)}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["show", "dl-99"], "the store has no such lesion; its names look like dl-1"),
        (["show", "dl-4", "--picture", "a.png"], "the lake holds no image for this lesion"),
        (["show", "dl-1", "--window", "5"], "two numbers are needed, the lower first"),
        (["show", "dl-1", "--window", "9,3"], "two numbers are needed, the lower first"),
        (["sql", "SELECT nothing"], "nothing"),
        (["sql", "DROP TABLE x"], "the store only answers questions"),
        (["ingest", "nowhere"], "there is no such file or folder"),
        (["ingest", ".", "--namespace", "A B"], "a namespace is 1 to 16 lower-case letters"),
        (["ingest", ".", "--workers", "-1"], "workers must lie between"),
        (["ingest", ".", "--config", "none.toml"], "cannot be read"),
        (["lake", "history", "--lake", "elsewhere"], "there is no lake here"),
        (["sync", "--lake", "elsewhere"], "there is no lake here"),
    ],
)
def test_mistakes_are_one_line_and_exit_with_two(filled, arguments, sentence):
    code, _, error = filled(*arguments)

    assert code == 2
    assert sentence in error
    assert "\n" not in error
    assert "Traceback" not in error


def test_lake_history_verify_and_vacuum(filled, tmp_path):
    assert "append" in filled("lake", "history")[1]
    assert json.loads(filled("lake", "history", "--json", "--limit", 1)[1])[0]["table"] in {"units", "quarantine"}
    code, out, _ = filled("lake", "verify", "--deep")
    assert code == 0
    assert "15 slices decoded to their digests" in out
    assert "the lake is whole" in out
    (tmp_path / "lake/tables/slices/orphan.parquet").write_bytes(b"x")
    assert filled("lake", "vacuum", "--dry-run", "--older-than-hours", 0)[1] == "slices/orphan.parquet\n"
    assert filled("lake", "vacuum", "--older-than-hours", 0)[1] == "slices/orphan.parquet\n"
    assert filled("lake", "vacuum", "--older-than-hours", 0)[1] == ""


def test_verify_exits_with_one_when_something_is_wrong(filled, tmp_path):
    next(Path(tmp_path, "lake/tables/lesions").glob("*.parquet")).unlink()

    code, out, _ = filled("lake", "verify")

    assert code == 1
    assert "! lesions/" in out


def test_doctor_sees_what_is_there_and_what_is_behind(filled, release):
    def states():
        return {one["what"]: one for one in json.loads(filled("doctor", "--json")[1])}

    assert states()["store"]["found"] == "up to date with the lake"
    assert states()["lake"]["found"].startswith("4 series")
    filled("ingest", release, "--namespace", "second")
    assert states()["store"]["state"] == "warn"
    assert states()["store"]["remedy"] == "run `lesionary sync`"


def test_doctor_without_a_lake_warns_and_does_not_fail(run):
    code, out, _ = run("doctor")

    assert code == 0
    assert "there is no lake here" in out


def test_quiet_says_nothing_but_results(filled, release):
    code, _, notes = filled("--quiet", "ingest", release)

    assert (code, notes) == (0, "")


def as_process(*arguments, **options):
    program = "from cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, timeout=60, **options
    )


def test_console_script_prints_the_sentence_and_the_exit_code(tmp_path):
    done = as_process("show", "dl-1", cwd=tmp_path)

    assert done.returncode == 2
    assert done.stderr == "lesionary: features.duckdb: there is no store yet; run `lesionary sync`\n"


@pytest.mark.parametrize("arguments", [["sql", "SELECT '\udcff'"], ["similar", "\udcff"], ["match", "\udcff"]])
def test_argument_that_is_no_text_is_one_line(arguments, tmp_path):
    done = as_process(*arguments, cwd=tmp_path)

    assert done.returncode == 2
    assert done.stderr == "lesionary: an argument is not UTF-8 text; write it in UTF-8\n"


def test_unexpected_errors_name_their_type_and_the_way_to_the_traceback(monkeypatch, capsys):
    def breaks(*_, **__):
        raise ZeroDivisionError("secret text of an input")

    monkeypatch.setattr(sys, "argv", ["lesionary", "--version"])
    monkeypatch.setattr("cli.main.app", breaks)
    monkeypatch.delenv("LESIONARY_DEBUG", raising=False)

    with pytest.raises(SystemExit) as caught:
        main()

    assert caught.value.code == 1
    error = capsys.readouterr().err
    assert error == "lesionary: unexpected ZeroDivisionError; run again as `lesionary --debug …` to see where\n"


def test_debug_shows_the_traceback(tmp_path):
    done = as_process("--debug", "show", "dl-1", cwd=tmp_path)

    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_reader_that_leaves_early_is_no_error(filled, tmp_path):
    program = "from cli.main import main; main()"
    question = "SELECT repeat('x', 1000) FROM range(20000)"
    command = [sys.executable, "-c", program, "sql", "--csv", question]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as process:
        process.stdout.readline()
        process.stdout.close()
        error = process.stderr.read()

    assert error == b""


def test_interrupt_ends_with_130_and_a_sentence(filled, tmp_path):
    program = "from cli.main import main; main()"
    question = "SELECT count(*) FROM range(100000000000) a"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "sql", question],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        # A job in a shell's background ignores interrupts, and so would all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (no threads here)
    )
    try:
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()

    assert process.returncode == 130
    assert "Traceback" not in error
    assert "what was committed is kept" in error


def test_parquet_gives_two_columns_of_one_name_names_of_their_own(filled, tmp_path):
    assert filled("sql", "SELECT 1 AS a, 2 AS a", "--parquet", "a.parquet")[0] == 0

    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == [{"a": 1, "a_1": 2}]


def test_settings_inside_the_source_are_not_taken_for_the_persons_own(run, release, tmp_path, monkeypatch):
    (release / "lesionary.toml").write_text(f'[ingest]\nkey_file = "{release / "known.key"}"\n')
    monkeypatch.chdir(release)

    code, _, sentence = run("ingest", ".", "--lake", tmp_path / "lake")

    assert code == 2
    assert sentence.startswith(
        "lesionary.toml: the settings file here lies inside the source; start from another folder"
    )
    assert not (tmp_path / "lake").exists()
    assert run("ingest", ".", "--lake", tmp_path / "lake", "--config", "lesionary.toml")[0] == 0


def test_control_characters_out_of_a_lake_do_not_reach_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        write_rows(["a"], [["red\x1b[31m\x07\x9b2Jtext"], [["\x1b]0;title\x07"]]], Format.TABLE, stream)

    assert not set("\x1b\x07\x9b") & set(terminal.getvalue())
    assert "red [31m" in terminal.getvalue()
    assert "\x1b[31m" in pipe.getvalue()  # a program gets what there is
