"""Loss functions that a model's author can trust.

The losses are in :mod:`aptt.loss`; this package itself imports nothing.
"""

__all__ = ["__version__"]

__version__ = "2.0.0.dev0"
