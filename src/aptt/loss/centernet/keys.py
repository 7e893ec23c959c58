"""What a mapping of maps or targets must hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

__all__ = ["check_keys"]


def check_keys(
    name: str, given: Mapping[str, Tensor], wanted: Sequence[str], also: Sequence[str] = ()
) -> None:
    """Refuse what is no mapping, and keys that are missing or unknown."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{name}: got {type(given).__name__}, wanted a mapping with {wanted}")
    missing = [key for key in wanted if key not in given]
    unknown = [key for key in given if key not in (*wanted, *also)]
    if missing or unknown:
        raise ValueError(
            f"{name}: got {sorted(given)}, wanted {', '.join(wanted)}"
            + (f", and perhaps {', '.join(also)}" if also else "")
        )
