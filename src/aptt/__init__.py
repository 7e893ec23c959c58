"""Loss functions that a model's author can trust.

The losses are in :mod:`aptt.loss`; this package itself imports nothing.
"""

__all__ = ["__version__"]

__version__ = "2.0.0rc1"


def __getattr__(name: str) -> object:
    """Say in which module a public name is, to who looks for it here."""
    if not name.startswith("_"):
        import re
        import sys
        from pathlib import Path

        for room in ("loss", "compose", "parallel", "audit"):
            text = (Path(__file__).parent / room / "__init__.py").read_text(encoding="utf-8")
            if re.search(rf'^    "{re.escape(name)}",$', text, re.MULTILINE):
                said = f"{name} is in aptt.{room}: from aptt.{room} import {name}"
                # an import statement would drop what an AttributeError says; others ask by it
                if sys._getframe(1).f_code.co_name == "_handle_fromlist":
                    raise ImportError(said)
                raise AttributeError(said)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
