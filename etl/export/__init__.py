"""Out of the lake again: other formats, written whole or not at all."""
