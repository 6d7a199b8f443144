"""A CT phantom that writes a DeepLesion release, or a PACS export, out of nothing but a seed."""
