"""``python -m docs.builder card`` writes docs/audit.md; ``site`` builds the site."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main(argv: list[str]) -> int:
    """Write the report card, or build the site."""
    if argv == ["card"]:
        from docs.builder import card

        card.write(ROOT / "docs" / "audit.md")
        return 0
    if argv[:1] == ["site"] and len(argv) <= 2:
        from docs.builder import site

        return site.build(Path(argv[1]) if len(argv) == 2 else ROOT / "build" / "site")
    print(f"{__doc__}\nusage: python -m docs.builder card | site [FOLDER]", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
