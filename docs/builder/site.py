"""The site: what is in docs/, what the repository says elsewhere, and a page for each loss."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from aptt.cli.catalogue import entries
from docs.builder import explorer, pages

__all__ = ["MARK", "build", "check", "list_losses"]

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MARK = re.compile(r"<!-- losses -->.*?<!-- end -->", re.DOTALL)
_ELSEWHERE = {
    ROOT / "benchmarks" / "README.md": "benchmarks.md",
    ROOT / "CONTRIBUTING.md": "contributing.md",
    ROOT / "CHANGELOG.md": "changelog.md",
    ROOT / "README.de.md": "deutsch.md",
}
_FIRST = ("getting_started", "losses/index", "explorer", "modules_overview", "migration", "audit")
_LAST = ("benchmarks", "contributing", "changelog", "deutsch")
_BOXES = re.compile(r"!\[[^\]]*\]\(boxes\.svg\)")
_ROW = re.compile(r"^(\| `\w+` \| )(.*?)( \|)", re.MULTILINE)
_FENCED = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def build(out: Path, *, points: int = 0) -> int:
    """Write the sources and build them; a warning is an error. Returns an exit code.

    ``points``: of each curve; by default as many as are seen where it is drawn.
    """
    torch.set_num_threads(1)
    source = out.parent / "site-source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)
    _write(source, points)
    _progress("the pages are put together")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    code = subprocess.run([*command, str(source), str(out)], check=False).returncode
    if code == 0:
        problems = check(out)
        for problem in problems:
            print(problem, file=sys.stderr)
        code = int(bool(problems))
    if code == 0:
        print(f"The site: {out / 'index.html'}")
    return code


def list_losses(path: Path) -> None:
    """Write the table of the losses between its marks, for who reads the file in the repository."""
    table = f"<!-- losses -->\n\n{pages.overview(entries(), linked=False)}\n\n<!-- end -->"
    path.write_text(MARK.sub(lambda _: table, path.read_text(encoding="utf-8")), encoding="utf-8")


def check(out: Path) -> list[str]:
    """Every public loss has its page, every page its loss, and every local link an end."""
    wanted = {pages.slug(entry) for entry in entries()}
    made = {path.stem for path in (out / "losses").glob("*.html")} - {"index"}
    problems = [f"{name}: a loss without a page" for name in sorted(wanted - made)]
    problems += [f"{name}: a page without a loss" for name in sorted(made - wanted)]
    for page in out.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r'(?:href|src)="([^"#?]+)', text):
            if re.match(r"[a-z]+:", link):
                continue
            if not (page.parent / link).exists():
                problems.append(f"{page.relative_to(out)}: {link} leads nowhere")
        for host in re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)', text):
            problems.append(f"{page.relative_to(out)}: needs the network for {host}")
    return problems


def _progress(text: str) -> None:
    """What is being done, in a line that the next one replaces."""
    if sys.stderr.isatty():
        print(f"\r{text:60}", end="", file=sys.stderr, flush=True)


def _write(source: Path, points: int) -> None:
    static, losses = source / "_static", source / "losses"
    shutil.copytree(DOCS / "theme" / "static", static)
    shutil.copy(DOCS / "conf.py", source)
    every = entries()
    few = points or 49
    grids = {entry.name: grid for entry in every if (grid := explorer.grid(entry, few))}
    (static / "explorer-data.js").write_text(explorer.script(grids), encoding="utf-8")
    losses.mkdir()
    for i, entry in enumerate(every, start=1):
        _progress(f"{i} of {len(every)} pages: {entry.name}")
        bends = bool(grids.get(entry.name, {}).get("options"))
        text = pages.loss(entry, explored=entry.name in grids, bends=bends, points=points)
        (losses / f"{pages.slug(entry)}.md").write_text(text, encoding="utf-8")
    (losses / "index.md").write_text(pages.gallery(every, few), encoding="utf-8")
    (source / "explorer.md").write_text(pages.explorer(), encoding="utf-8")
    written = {path: path.name for path in sorted(DOCS.glob("*.md"))} | _ELSEWHERE
    for path, name in written.items():
        text = path.read_text(encoding="utf-8")
        text = MARK.sub(lambda _: pages.overview(every, linked=True), text)
        if path == DOCS / "boxes.md":
            text = _BOXES.sub(lambda _: pages.boxes(), text)
        text = _named(_linked(text, path, written, source), "losses")
        (source / name).write_text(text, encoding="utf-8")
    (source / "index.md").write_text(_index(written, source), encoding="utf-8")


def _index(written: dict[Path, str], source: Path) -> str:
    """The README as the front page, with the list of all pages."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = _named(_linked(text, ROOT / "README.md", written, source), "losses")
    stems = [name.removesuffix(".md") for name in written.values()]
    known = {*stems, "losses/index", "explorer"}
    rest = sorted(known - {*_FIRST, *_LAST, "index"})
    order = [name for name in (*_FIRST, *rest, *_LAST) if name in known]
    order = ["Deutsch <deutsch>" if name == "deutsch" else name for name in order]
    return "\n".join([text, "", ":::{toctree}", ":hidden:", ":maxdepth: 2", "", *order, ":::", ""])


def _named(text: str, folder: str) -> str:
    """In a table of losses by file, each name as a link to its page."""
    pages_of = {name: e for e in entries() for name in (e.function, e.module_form) if name}

    def link(match: re.Match[str]) -> str:
        name = match[1]
        known = name in pages_of
        return f"[`{name}`]({folder}/{pages.slug(pages_of[name])}.md)" if known else match[0]

    def row(match: re.Match[str]) -> str:
        cell = match[2] if "](" in match[2] else re.sub(r"`(\w+)`", link, match[2])
        return f"{match[1]}{cell}{match[3]}"

    return _ROW.sub(row, text)


def _linked(text: str, path: Path, written: dict[Path, str], source: Path) -> str:
    """Links to other files of the repository, as links of the site, or else as plain names."""

    def link(match: re.Match[str]) -> str:
        image, words, target, anchor = match.groups(default="")
        if re.match(r"[a-z]+:", target):
            return match[0]
        file = (path.parent / target).resolve()
        place = "index.md" if file == ROOT / "README.md" else written.get(file)
        if place is not None:
            return f"{image}[{words}]({place}{anchor})"
        if file == DOCS or (file.parent.parent == DOCS and file.parent.name == "losses"):
            return f"[{words}](losses/{file.name})"
        if not file.exists():
            raise FileNotFoundError(
                f"{path.relative_to(ROOT)} links to {target}, which is not there"
            )
        if image:
            shutil.copy(file, source / file.name)
            return f"![{words}]({file.name})"
        return f"{words} (`{file.relative_to(ROOT)}`)"

    parts = _FENCED.split(text)  # every second one is code, where brackets are no links
    return "".join(part if i % 2 else _LINK.sub(link, part) for i, part in enumerate(parts))
