"""A module that fails while it is imported."""

raise SystemExit("on purpose")
