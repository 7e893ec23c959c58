"""The documentation, and in :mod:`docs.builder` what makes it."""
