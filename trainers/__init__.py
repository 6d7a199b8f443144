"""Training loops in plain torch. May import: lesionary, torch. Never etl, store or cli."""
