"""A start without labels and without a download: learn where in the body a crop lies."""
