"""The body-part regressor: how high in the body a slice lies (SSBR, arXiv 1707.03891)."""
