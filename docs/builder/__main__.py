"""Make the documentation: ``python -m docs.builder card [JOBS]|overview|site [FOLDER]``.

``card`` writes docs/audit.md, in so many processes, ``overview`` the table of the losses in
docs/modules_overview.md, ``site`` builds the site.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main(argv: list[str]) -> int:
    """Do one of the three."""
    if argv[:1] == ["card"] and len(argv) <= 2 and all(map(str.isdecimal, argv[1:])):
        from docs.builder import card

        card.write(ROOT / "docs" / "audit.md", jobs=int(*argv[1:] or [1]))
        return 0
    if argv == ["overview"]:
        from docs.builder import site

        site.list_losses(ROOT / "docs" / "modules_overview.md")
        return 0
    if argv[:1] == ["site"] and len(argv) <= 2:
        from docs.builder import site

        return site.build(Path(argv[1]) if len(argv) == 2 else ROOT / "build" / "site")
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
