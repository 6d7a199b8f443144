"""The DuckDB feature store that serves the lake to analysts: a rebuildable copy, never the truth.

May import: lesionary, duckdb. Never etl, trainers or cli.
"""
