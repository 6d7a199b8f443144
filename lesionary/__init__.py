"""The shared floor: schemas, the lake, geometry, identifiers, errors and settings. Light and pure.

May import: numpy, pyarrow, deltalake, imagecodecs, pillow. Never ray, torch, duckdb, faiss, typer or pydicom.
"""

__version__ = "0.1.0"
