"""Mutants that compute the same: by file, line and kind, with the reason."""

EQUIVALENT: dict[tuple[str, str, str], str] = {}
