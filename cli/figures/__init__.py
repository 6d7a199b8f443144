"""Figures: what an answer looks like drawn; from arrays and records to a PNG."""
