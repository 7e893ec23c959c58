"""The public names with their signatures, compared with the list that was agreed on.

``python tests/test_public_api.py`` writes ``public_api.txt`` anew. A line that goes or changes
needs a line in CHANGELOG and, once a release has it, the rule for deprecations in CONTRIBUTING.
"""

import importlib
import inspect
from pathlib import Path

LISTED = Path(__file__).with_name("public_api.txt")
ROOMS = ("aptt.loss", "aptt.compose", "aptt.parallel", "aptt.audit")


def default(value: object) -> str:
    if inspect.isroutine(value) or inspect.isclass(value):
        return value.__qualname__
    return repr(value)


def shown(signature: inspect.Signature) -> str:
    """A signature without annotations; a function as a default goes by its name."""
    parts = []
    for parameter in signature.parameters.values():
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        given = "" if parameter.default is parameter.empty else f"={default(parameter.default)}"
        if parameter.kind is parameter.KEYWORD_ONLY and not any(p.startswith("*") for p in parts):
            parts.append("*")
        parts.append(star + parameter.name + given)
    return f"({', '.join(parts)})"


def lines() -> list[str]:
    found = []
    for room in ROOMS:
        module = importlib.import_module(room)
        for name in sorted(module.__all__):
            value = getattr(module, name)
            try:
                signature = shown(inspect.signature(value))
            except (TypeError, ValueError):  # a constant, a type
                signature = ""
            found.append(f"{room}.{name}{signature}")
            if inspect.isclass(value) and "forward" in vars(value):
                found.append(f"{room}.{name}.forward{shown(inspect.signature(value.forward))}")
    return found


def test_the_public_names_and_signatures_are_those_agreed_on():
    agreed, now = LISTED.read_text(encoding="utf-8").splitlines(), lines()
    gone = [line for line in agreed if line not in now]
    new = [line for line in now if line not in agreed]
    assert not gone, "gone or changed; now: " + "\n".join(new)
    assert not new, "new: write the list anew, and say it in CHANGELOG"


if __name__ == "__main__":
    LISTED.write_text("\n".join(lines()) + "\n", encoding="utf-8")
