"""Self-supervised body-part regression (SSBR): a score for every slice of a CT that rises from head to foot."""
