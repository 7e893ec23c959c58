"""The one JSON document that ``--json`` prints."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["to_json"]


def to_json(document: Any) -> str:
    """Write the document for people and programs alike: indented, and strictly JSON."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
