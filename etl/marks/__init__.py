"""Readers of radiologists' marks, one module a source, all ending as `marks/model.py` says."""
