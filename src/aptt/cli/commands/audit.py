"""``aptt audit [TARGET ...]``: hold a loss to every promise, ours or anyone's."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aptt.cli.mistakes import Mistake, pick

if TYPE_CHECKING:
    from aptt.audit import Promise, Record, Spec

__all__ = ["configure", "run"]

_MARKS = {"kept": "+", "broken": "!", "does not apply": "-"}
_EPILOG = """\
examples:
  aptt audit                                          every loss of aptt
  aptt audit giou --promise scale_invariance          one of them, one promise
  aptt audit torch.nn.functional:cross_entropy --kind logits+classes
  aptt audit mine.losses:MyDice --kind masks --set smooth=1.0 --junit audit.xml
  aptt audit mine.losses:my_loss --inputs mine.data:make_inputs

exit codes: 0 every promise kept, 1 one broken, 2 a mistake in the call
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
        help="instead of a kind: a function (generator, n) that makes n samples as a dict",
    )
    parser.add_argument(
        "--example",
        type=Path,
        metavar="FILE",
        help="instead of a kind: one batch, a dict of tensors saved with torch.save; or a Python "
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
    parser.add_argument("--device", default="cpu", help="where to run; default cpu")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="also write JUnit XML")
    parser.add_argument("--promises", action="store_true", help="list the promises, and stop")
    parser.add_argument("--kinds", action="store_true", help="list the kinds of inputs, and stop")


def run(args: argparse.Namespace) -> int:
    """Audit each target, and say what was kept and what was broken."""
    from aptt.audit import KINDS, PROMISES, audit, to_json, to_junit

    if args.promises or args.kinds:
        _list(PROMISES if args.promises else KINDS)
        return 0
    names = [pick("promise", n, PROMISES, every="see --promises") for n in args.promise or PROMISES]
    promises = [PROMISES[name] for name in dict.fromkeys(names)]
    specs = _specs(args)
    note = _note()
    records: list[Record] = []
    if not args.json:
        records = _told(specs, promises, args.device, shrink=not note)
        print(note) if note and any(r.state == "broken" for r in records) else None
    else:
        records = list(audit(specs, promises, device=args.device, shrink=not note))
        print(to_json(records))
    if args.junit:
        try:
            args.junit.write_text(to_junit(records), encoding="utf-8")
        except OSError as error:
            raise Mistake(f"--junit: {error}") from error
    return int(any(record.state == "broken" for record in records))


def _list(things: Any) -> None:
    for name, thing in things.items():
        print(f"{name}\n    {thing.about}")
        if limits := getattr(thing, "limits", ""):
            print(textwrap.indent(textwrap.fill(f"It does not see all: {limits}", 92), "    "))


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

    strangers = [target for target in args.targets if ":" in target]
    if not strangers:
        for name in ("kind", "inputs", "example", "options"):
            if getattr(args, name):
                option = "set" if name == "options" else name
                raise Mistake(f"--{option}: only for a loss that is not ours, package.module:name")
    if not args.targets:
        return list(SPECS.values())
    specs: list[Spec] = []
    for target in args.targets:
        specs += [_stranger(target, args)] if ":" in target else _ours(target)
    return list({spec.name: spec for spec in specs}.values())


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
    ways = [name for name in ("kind", "inputs", "example") if getattr(args, name)]
    if len(ways) != 1:
        raise Mistake(
            f"{target}: what are its inputs? one of --kind ({', '.join(KINDS)}), --inputs, "
            "--example"
        )
    kind = args.kind and pick("kind", args.kind, KINDS)
    maker = load(args.inputs) if args.inputs else _example(args.example) if args.example else None
    try:
        return make(loss, kind=kind, inputs=maker, options=_options(args.options), name=target)
    except ValueError as error:
        raise Mistake(str(error)) from error


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
    specs: Sequence[Spec], promises: Sequence[Promise], device: str, *, shrink: bool
) -> list[Record]:
    """Print each record as it comes; of many losses, a line each and the table at the end."""
    from aptt.audit import audit, table

    records: list[Record] = []
    for spec in specs:
        alone = len(specs) <= 3
        print(f"{spec.name}" if alone else f"{spec.name}: ", end="\n" if alone else "", flush=True)
        mine = []
        for record in audit([spec], promises, device=device, shrink=shrink):
            mine.append(record)
            if alone:
                _print(record)
        print(f"  {_count(mine)}\n" if alone else _count(mine), flush=True)
        records += mine
    if len(specs) > 3:
        print(f"\n{table(records)}")
        for record in records:
            if record.smallest:
                print(f"  {record.loss}, {record.promise}, smallest: {record.smallest}")
    limits = [p for p in promises if p.limits and any(r.promise == p.name for r in records)]
    if limits:
        print("What 'kept' does not say:")
        for promise in limits:
            print(textwrap.fill(f"{promise.name}: {promise.limits}", 96, initial_indent="  ",
                                subsequent_indent="      "))  # fmt: skip
    return records


def _count(records: Sequence[Record]) -> str:
    states = [record.state for record in records]
    text = f"{states.count('kept')} kept, {states.count('broken')} broken"
    left = states.count("does not apply")
    return f"{text}, {left} {'does' if left == 1 else 'do'} not apply" if left else text


def _print(record: Record) -> None:
    from aptt.audit import PROMISES

    print(f"  {_MARKS[record.state]} {record.promise}: ", end="")
    if record.state == "broken":
        print("BROKEN")
        _indented(PROMISES[record.promise].about)
        _indented(record.why)
        if record.smallest:
            _indented(f"smallest input found: {record.smallest}")
    elif record.state == "kept":
        print(PROMISES[record.promise].about)
        for case, reason in record.left_out.items():
            _indented(f"not in {case!r}: {reason}")
    else:
        print(f"does not apply: {record.why}")


def _indented(text: str) -> None:
    print(textwrap.indent(textwrap.fill(text, 92, break_long_words=False), "      "))
