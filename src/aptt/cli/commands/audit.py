"""``aptt audit [TARGET ...]``: hold a loss to every promise, ours or anyone's."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aptt.cli.mistakes import Mistake, pick, writable, writing

if TYPE_CHECKING:
    from aptt.audit import Promise, Record, Spec

__all__ = ["configure", "run"]

_MARKS = {"kept": "+", "broken": "!", "allowed": "~"}
_EPILOG = """\
examples:
  aptt audit                                          every loss of aptt
  aptt audit giou --promise scale_invariance          one of them, one promise
  aptt audit torch.nn.functional:cross_entropy --kind logits+classes
  aptt audit mine.losses:MyDice --kind masks --set smooth=1.0 --junit audit.xml
  aptt audit mine.losses:my_loss --inputs mine.data:make_inputs
  aptt audit mine.losses:my_loss --inputs mine.data:make_inputs --kind regression
  aptt audit mine.losses:my_loss --kind boxes --allow autocast="we never use it"

exit codes: 0 every promise kept or allowed, 1 one broken, 2 a mistake in the call
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="TARGET",
        help="a loss of aptt by any of its names, or package.module:name of a function, a class "
        "or a row (aptt.audit.Spec); every loss of aptt by default",
    )
    parser.add_argument("--kind", help="what inputs a loss that is not ours takes; see --kinds")
    parser.add_argument(
        "--inputs",
        metavar="MODULE:NAME",
        help="a function (generator, n) that makes n samples as a dict, by the names of the loss's "
        "arguments; what they mean is deduced where it can be, or --kind says it",
    )
    parser.add_argument(
        "--example",
        type=Path,
        metavar="FILE",
        help="as --inputs: one batch, a dict of tensors saved with torch.save; or a Python "
        "file with a function inputs(generator, n)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="options",
        help="an option for a loss that is not ours; may be repeated",
    )
    parser.add_argument(
        "--promise", action="append", metavar="NAME", help="only this one; may be repeated"
    )
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="PROMISE[=REASON]",
        help="this one may be broken, on purpose: the exit code ignores it; may be repeated",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="say also what a kept promise does not see"
    )
    parser.add_argument("--device", default="cpu", help="where to run; default cpu")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="also write JUnit XML")
    parser.add_argument("--promises", action="store_true", help="list the promises, and stop")
    parser.add_argument("--kinds", action="store_true", help="list the kinds of inputs, and stop")


def run(args: argparse.Namespace) -> int:
    """Audit each target, and say what was kept and what was broken."""
    if args.junit:
        writable("--junit", args.junit)
    from aptt.audit import KINDS, PROMISES, audit, to_json, to_junit

    if args.promises or args.kinds:
        _list(PROMISES if args.promises else KINDS)
        return 0
    names = [pick("promise", n, PROMISES, every="see --promises") for n in args.promise or PROMISES]
    promises = [PROMISES[name] for name in dict.fromkeys(names)]
    promises.sort(key=lambda promise: promise.gravity)  # wrong numbers first, conventions last
    allow = _allowed(args.allow)
    _check_device(args.device)
    specs = _specs(args)
    note = _note()
    how = {"device": args.device, "shrink": not note, "allow": allow}
    records: list[Record] = []
    if not args.json:
        records = _told(specs, promises, how, verbose=args.verbose)
        print(note) if note and any(r.state == "broken" for r in records) else None
    else:
        for i, spec in enumerate(specs):
            _progress(i, specs)
            records += audit([spec], promises, **how)
            print("".join(f"{spec.name}: {n}\n" for n in spec.notes), end="", file=sys.stderr)
        _progress(len(specs), specs)
        print(to_json(records))
    if args.junit:
        with writing(args.junit):
            args.junit.write_text(to_junit(records), encoding="utf-8")
    return int(any(record.state == "broken" for record in records))


def _allowed(said: Sequence[str]) -> dict[str, str]:
    from aptt.audit import PROMISES

    pairs = [text.partition("=") for text in said]
    return {pick("promise", n, PROMISES, every="see --promises"): why for n, _, why in pairs}


def _check_device(name: str) -> None:
    import torch

    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, ValueError) as error:  # torch has no one error for it
        first = str(error).strip().partition("\n")[0]
        raise Mistake(f"--device: {name!r} cannot be used here: {first}") from error


def _list(things: Any) -> None:
    for name, thing in things.items():
        print(f"{name}\n    {_plain(thing.about)}")
        if limits := getattr(thing, "limits", ""):
            print(
                textwrap.indent(textwrap.fill(f"It does not see all: {_plain(limits)}", 92), "    ")
            )


def _note() -> str:
    """What to say if the smallest failing inputs cannot be looked for."""
    try:
        import hypothesis  # noqa: F401
    except ModuleNotFoundError:
        return (
            "The smallest inputs that fail were not looked for: 'hypothesis' is not installed; "
            'it comes with: pip install "aptt[audit]"'
        )
    return ""


# ------------------------------------------------------------------------------ what to audit


def _specs(args: argparse.Namespace) -> list[Spec]:
    from aptt.audit import SPECS

    if not any(":" in target for target in args.targets):
        for name in ("kind", "inputs", "example", "options"):
            if getattr(args, name):
                option = "set" if name == "options" else name
                raise Mistake(f"--{option}: {_no_colon(args.targets)}")
    if not args.targets:
        return list(SPECS.values())
    specs: list[Spec] = []
    for target in args.targets:
        specs += [_stranger(target, args)] if ":" in target else _ours(target)
    return list({spec.name: spec for spec in specs}.values())


def _no_colon(targets: Sequence[str]) -> str:
    from aptt.audit import SPECS
    from aptt.cli.catalogue import entries

    ours = {*SPECS, *(name for e in entries() for name in (e.function, e.module_form))}
    others = [target for target in targets if target not in ours]
    wanted = "only for a loss that is not ours, package.module:name"
    if not others or not all(part.isidentifier() for part in others[0].split(".")):
        return wanted
    return f"{wanted}; for a loss in {others[0]!r}, {others[0]}:NAME"


def _ours(name: str) -> Sequence[Spec]:
    from aptt.audit import SPECS
    from aptt.cli.catalogue import find

    if name in SPECS:  # one form of a loss that has several rows
        return [SPECS[name]]
    entry = find(name)
    known = {entry.function, entry.module_form}
    rows = [
        spec
        for spec in SPECS.values()
        if {spec.name, spec.function.__name__, getattr(spec.module, "__name__", None)} & known
    ]
    if not rows:
        raise Mistake(f"{entry.name}: it has no row in aptt.audit, and so cannot be audited")
    return rows


def _stranger(target: str, args: argparse.Namespace) -> Spec:
    from aptt.audit import KINDS, Spec, make
    from aptt.cli.naming import load

    loss = load(target)
    if isinstance(loss, Spec):
        return loss
    if not (args.kind or args.inputs or args.example):
        raise Mistake(
            f"{target}: what are its inputs? one of --kind ({', '.join(KINDS)}), --inputs, "
            "--example"
        )
    if args.inputs and args.example:
        raise Mistake("--inputs and --example both make the inputs: give one")
    kind = args.kind and pick("kind", args.kind, KINDS)
    maker = load(args.inputs) if args.inputs else _example(args.example) if args.example else None
    try:
        return make(loss, kind=kind, inputs=maker, options=_options(args.options), name=target)
    except (ValueError, TypeError) as error:
        raise Mistake(f"{target}: {error}") from error


def _example(file: Path) -> Any:
    import torch

    from aptt.audit import example_maker
    from aptt.cli.naming import from_file

    if file.suffix == ".py":
        return from_file(file, "inputs")
    try:
        example = torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise Mistake(f"--example: {file} is no batch saved with torch.save: {first}") from error
    if not isinstance(example, dict) or not all(
        isinstance(t, torch.Tensor) for t in example.values()
    ):
        raise Mistake(f"--example: {file} holds no dict of tensors")
    try:
        return example_maker(example)
    except ValueError as error:
        raise Mistake(f"--{error}") from error


def _options(pairs: Sequence[str]) -> dict[str, Any]:
    from aptt.cli.naming import value

    options = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise Mistake(f"--set: got {pair!r}, wanted NAME=VALUE")
        options[name] = value(text)
    return options


# ------------------------------------------------------------------------------- what came out


def _told(
    specs: Sequence[Spec], promises: Sequence[Promise], how: dict[str, Any], *, verbose: bool
) -> list[Record]:
    """Print each record as it comes; of many losses, a line each and the table at the end."""
    from aptt.audit import audit, table

    records: list[Record] = []
    alone = len(specs) <= 3
    for i, spec in enumerate(specs):
        if alone:
            print("\n  ".join((spec.name, *spec.notes)), flush=True)
        _progress(i, specs)
        mine = []
        for record in audit([spec], promises, **how):
            mine.append(record)
            if alone:
                _print(record)
        _progress(i + 1, specs)
        if alone:
            _print_left_out(mine)
        print(f"  {_count(mine)}\n" if alone else f"{spec.name}: {_count(mine)}", flush=True)
        records += mine
    if not alone:
        print(f"\n{_plain(table(records))}")
        for record in records:
            if record.smallest:
                print(f"  {record.loss}, {record.promise}, smallest: {record.smallest}")
    _print_limits(promises, records, verbose=verbose)
    return records


def _progress(done: int, specs: Sequence[Spec]) -> None:
    """How many of many losses are done, over and over in one line of a terminal."""
    if len(specs) > 3 and sys.stderr.isatty():
        text = f"{done}/{len(specs)}" if done < len(specs) else ""
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _print_limits(promises: Sequence[Promise], records: Sequence[Record], *, verbose: bool) -> None:
    kept = {record.promise for record in records if record.state == "kept"}
    limits = [promise for promise in promises if promise.limits and promise.name in kept]
    if limits and not verbose:
        print("'kept' is not all there is to know: --verbose says what a promise does not see.")
    elif limits:
        print("What 'kept' does not say:")
        for promise in limits:
            print(textwrap.fill(_plain(f"{promise.name}: {promise.limits}"), 96,
                                initial_indent="  ", subsequent_indent="      "))  # fmt: skip


def _count(records: Sequence[Record]) -> str:
    states = [record.state for record in records]
    text = f"{states.count('kept')} kept, {states.count('broken')} broken"
    text += f", {states.count('allowed')} allowed" if "allowed" in states else ""
    left = states.count("does not apply")
    return f"{text}, {left} {'does' if left == 1 else 'do'} not apply" if left else text


def _print(record: Record) -> None:
    from aptt.audit import PROMISES

    if record.state == "does not apply":
        return
    about = _plain(PROMISES[record.promise].about)
    print(f"  {_MARKS[record.state]} {record.promise}: ", end="")
    if record.state == "kept":
        print(about)
        for case, reason in record.left_out.items():
            _indented(f"not in {case!r}: {reason}")
        return
    print("BROKEN" if record.state == "broken" else f"allowed, {record.allowed}")
    _indented(about)
    _indented(record.why)
    if record.smallest:
        _indented(f"smallest input found: {record.smallest}")


def _print_left_out(records: Sequence[Record]) -> None:
    """What does not apply, by the reasons; last, what could be asked if more were said."""
    reasons: dict[str, list[str]] = {}
    for record in records:
        if record.state == "does not apply":
            reasons.setdefault(record.why, []).append(record.promise)
    for why in sorted(reasons, key=lambda why: "--kind" in why):
        text = _plain(f"- {', '.join(reasons[why])}: {why}")
        print(textwrap.fill(text, 98, initial_indent="  ", subsequent_indent="      "))


def _indented(text: str) -> None:
    text = _plain(text)
    print(textwrap.indent(textwrap.fill(text, 92, break_long_words=False), "      "))


def _plain(text: str) -> str:
    """Without the backticks that docstrings mark code with."""
    return text.replace("``", "")
