"""`lesionary ingest`: a DeepLesion release into the lake."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from etl.ingest import IngestSummary, Progress, Runner
    from etl.release import ReleasePlan
