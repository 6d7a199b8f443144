# ruff: noqa: E501
"""Hostile questions, the same ones every time: families of attacks, varied in spelling, wrapping and target."""

import itertools
import random

SECRET = "the-secret-nobody-may-read"  # noqa: S105

_WRITES = (
    "DELETE FROM lake_rows.lesions", "UPDATE lake_rows.lesions SET long_mm = 0", "DROP TABLE lake_rows.lesions",
    "DROP SCHEMA lake_rows CASCADE", "DROP VIEW lesions", "TRUNCATE lake_rows.lesions",
    "INSERT INTO lake_rows.lesions (lesion_id) VALUES ('x')", "ALTER TABLE lake_rows.lesions ADD COLUMN x INTEGER",
    "CREATE TABLE x (a INTEGER)", "CREATE OR REPLACE VIEW lesions AS SELECT 1", "CREATE SCHEMA x", "CREATE SEQUENCE x",
    "CREATE TEMP TABLE x AS SELECT 1", "CREATE MACRO f(x) AS x", "CREATE TYPE t AS ENUM ('a')",
    "CREATE INDEX i ON lake_rows.lesions (lesion_id)", "MERGE INTO lake_rows.lesions USING lesions ON true WHEN MATCHED THEN DELETE", "COMMENT ON TABLE lake_rows.lesions IS 'x'", "VACUUM", "ANALYZE", "CHECKPOINT",
    "FORCE CHECKPOINT", "BEGIN", "COMMIT", "ROLLBACK", "EXPLAIN ANALYZE DELETE FROM lake_rows.lesions",
    "EXPLAIN ANALYZE INSERT INTO lake_rows.lesions (lesion_id) VALUES ('x')",
    "WITH a AS (DELETE FROM lake_rows.lesions RETURNING *) SELECT * FROM a",
)  # fmt: skip
_OUTSIDE = (
    "ATTACH '{out}' AS x", "ATTACH '{secret}' AS x (READ_ONLY)", "DETACH features", "USE x", "ATTACH ':memory:' AS x",
    "COPY lesions TO '{out}'", "COPY (SELECT 1) TO '{out}' (FORMAT csv)", "COPY lake_rows.lesions FROM '{secret}'",
    "EXPORT DATABASE '{out}'", "IMPORT DATABASE '{out}'", "INSTALL httpfs", "LOAD httpfs", "LOAD '{secret}'",
    "FORCE INSTALL spatial FROM community", "UPDATE EXTENSIONS", "CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "CREATE PERSISTENT SECRET s (TYPE http)", "DROP SECRET s",
)  # fmt: skip
_SETTINGS = (
    "SET enable_external_access = true", "SET GLOBAL enable_external_access = true", "RESET enable_external_access",
    "SET lock_configuration = false", "SET memory_limit = '900GB'", "SET temp_directory = '{out}'",
    "SET allowed_directories = ['/']", "SET python_enable_replacements = true", "SET threads = 1000",
    "SET secret_directory = '{out}'", "SET home_directory = '{out}'", "SET log_query_path = '{out}'",
    "SET profile_output = '{out}'", "PRAGMA enable_profiling", "PRAGMA profiling_output = '{out}'",
    "PRAGMA database_list", "PRAGMA memory_limit = '900GB'", "PRAGMA disable_checkpoint_on_shutdown",
    "CALL pragma_version()", "CALL enable_logging()", "CALL start_ui()", "CALL force_checkpoint()",
    "SET VARIABLE x = 1", "PREPARE p AS DELETE FROM lake_rows.lesions", "EXECUTE p", "DEALLOCATE p",
    "CALL checkpoint('features')", "SET default_secret_storage = 'x'",
)  # fmt: skip
_READS = (
    "read_text('{secret}')", "read_blob('{secret}')", "read_csv('{secret}')", "read_csv_auto('{secret}')",
    "read_parquet('{secret}')", "parquet_scan('{secret}')", "parquet_metadata('{secret}')", "read_json('{secret}')",
    "read_json_auto('{secret}')", "read_ndjson('{secret}')", "read_ndjson_objects('{secret}')", "glob('{folder}/*')",
    "sniff_csv('{secret}')", "'{secret}'", "\"{secret}\"", "'{folder}/*.csv'", "query('FROM ''{secret}''')",
    "query('SELECT * FROM read_text(''{secret}'')')", "query_table('{secret}')", "parquet_schema('{secret}')",
    "parquet_file_metadata('{secret}')", "read_text(['{secret}'])", "read_csv('file://{secret}')",
    "read_text('https://localhost/x')", "read_parquet('s3://b/x')", "sqlite_scan('{secret}', 't')",
    "read_duckdb('{secret}')", "python_variable", "hostile_frame", "pragma_storage_info('{secret}')",
    "read_text(getvariable('x'))", "read_text('/proc/self/environ')", "read_text('/etc/passwd')",
)  # fmt: skip
_SCALARS = (
    "getenv('HOME')", "getenv('PATH')", "current_setting('secret_directory')", "write_log('{out}')",
    "which_secret('s3://x', 's3')", "nextval('store.shard_numbers')", "currval('store.shard_numbers')",
    "set_config('x', 'y', false)", "pg_read_file('{secret}')", "load_extension('{secret}')", "add_parquet_key('a', 'b')",
    "error('{secret}')", "txid_current()", "getvariable('x')", "json_execute_serialized_sql('{secret}')",
)  # fmt: skip
# Each would take all memory or all time there is.
HEAVY = (
    "SELECT count(*) FROM range(1000000) a, range(1000000) b, range(1000000) c WHERE a.range + b.range != c.range",
    "SELECT a.range FROM range(100000000) a, range(100000000) b ORDER BY hash(a.range + b.range)",
    "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t) SELECT max(x) FROM t",
    "WITH RECURSIVE t(x) AS (SELECT 'a' UNION ALL SELECT x || x FROM t) SELECT len(max(x)) FROM t",
    "SELECT sum(hash(range)) FROM range(1000000000000)",
    "SELECT len(repeat('x', 4000000000))",
    "SELECT len(list(range)) FROM range(1000000000)",
    "SELECT len(string_agg(range::VARCHAR, ',')) FROM range(1000000000)",
    "SELECT list_sum(range(3000000000))",
    "SELECT count(DISTINCT a.range * b.range) FROM range(1000000) a, range(1000000) b",
    "SELECT len(repeat(repeat(repeat('x', 10000), 10000), 10000))",
    "SELECT regexp_matches(repeat('a', 100000000), '(a+)+(b|c)*d{0,900}')",
    "SELECT count(*) FROM (SELECT row_number() OVER (ORDER BY hash(range)) FROM range(1000000000))",
    "SELECT * FROM (SELECT unnest(range(100000000)) AS a), (SELECT unnest(range(100000000)) AS b) ORDER BY a + b LIMIT 1",
)


def hostile_strings(secret, out, folder, count=1000):
    """`count` different strings that want files, writes, settings or resources; heavy ones are in `HEAVY`."""
    generator = random.Random(20180)
    names = {"secret": secret, "out": out, "folder": folder}
    statements = [text.format(**names) for text in (*_WRITES, *_OUTSIDE, *_SETTINGS)]
    sources = [text.format(**names) for text in _READS]
    scalars = [text.format(**names) for text in _SCALARS]
    found = dict.fromkeys(statements)
    for statement in statements:
        found |= dict.fromkeys(
            (
                f"SELECT 1; {statement}", f"{statement}; SELECT 1", f"/* x */ {statement}", f"true; {statement}; --",
                f"1=1) ; {statement}; --", f"long_mm > 1) OR (SELECT 1 FROM ({statement})", _cased(statement, generator),
            )
        )  # fmt: skip
    for source in sources:
        found |= dict.fromkeys(
            (
                f"SELECT * FROM {source}", f"FROM {source}", f"lesion_id IN (SELECT * FROM {source})",
                f"EXISTS (FROM {source})", f"SELECT (SELECT max(a) FROM {source} AS t(a))", f"DESCRIBE FROM {source}",
                f"SUMMARIZE FROM {source}", f"EXPLAIN ANALYZE FROM {source}", f"true) UNION ALL SELECT * FROM {source} --",
                f"WITH a AS (FROM {source}) SELECT * FROM a", f"SELECT * FROM lesions JOIN {source} ON true",
                f"1 = 1) UNION SELECT 1 FROM {source} WHERE (1 = 1", _cased(f"SELECT * FROM {source}", generator),
            )
        )  # fmt: skip
    for scalar in scalars:
        found |= dict.fromkeys((f"SELECT {scalar}", f"{scalar} IS NOT NULL", f"long_mm > 0 AND {scalar} = 'x'"))
    found |= dict.fromkeys(_malformed())
    for first, second in itertools.product(statements, repeat=2):
        if len(found) >= count:
            break
        found[f"{first}; {second}"] = None
    return list(found)[:count]


def _cased(text, generator):
    return "".join(
        generator.choice((letter.lower(), letter.upper())) if letter.isalpha() else letter for letter in text
    )


def _malformed():
    return (
        "", " ", ";", ";;", "--", "/*", "'", '"', "$$", "$$ $$ $$", "\0", "SELECT 'a\0b'", "\ufeffSELECT 1; DROP TABLE x",
        "SELECT \u201ca\u201d", "true\u2028; DROP TABLE x", "\u037e DROP TABLE x", "SELECT ?", "SELECT $1", "long_mm > ?",
        "SELECT $a", "(" * 5_000, ")" * 5_000, "(" * 3_000 + "1" + ")" * 3_000, "NOT " * 8_000 + "true",
        "1" + "+1" * 20_000, "'" + "x" * 200_000 + "'", "SELECT " + ",".join(["1"] * 20_000), "CASE" * 1_000,
        "[" * 2_000 + "]" * 2_000, "true) --", "true) /*", "true)) --", "(true", "true, false", "true ORDER BY 1",
        "true LIMIT 1", "true GROUP BY 1", "true HAVING true", "count(*) > 1", "row_number() OVER () > 1", "long_mm",
        "'true'", "1", "NULL", "*", "lesions", "(SELECT 1)", "(SELECT true), true", "unnest([true, false])",
        "x'41'", "E'\\x41'", "U&'\\0041'", "\\x", "%s", "{}", "{secret}", "{0.__class__}", "%(x)s", "true AND",
        "SELECT * FROM lesions FOR UPDATE", "LISTEN x", "NOTIFY x", "DO $$ x $$", "GRANT ALL ON x TO y", "LOCK TABLE x",
        "SHUTDOWN", "KILL 1", "SELECT 1 INTO x", "VALUES (1), (2); VALUES (3)", "PIVOT lesions ON lesion_id",
    )  # fmt: skip
