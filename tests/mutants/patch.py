"""A mutant put in place: into functions that exist, or, where that cannot be, as it is imported."""

from __future__ import annotations

import ast
import functools
import gc
import importlib.abc
import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType

Key = tuple[str, str, int]


class Cold(Exception):
    """The change is in what a module does when it is imported."""


class Live:
    """The functions of the package, as they are in this process."""

    def __init__(self, package: Path) -> None:
        self.functions: dict[Key, list[FunctionType]] = {}
        self.caches = []
        for thing in gc.get_objects():
            if type(thing) is FunctionType:  # to ask an object itself may make it warn
                if thing.__code__.co_filename.startswith(str(package)):
                    self.functions.setdefault(_key(thing.__code__), []).append(thing)
            elif type(thing) is functools._lru_cache_wrapper and _is_of(thing, package):
                self.caches.append(thing)

    def patch(self, path: Path, source: str, tree: ast.Module) -> None:
        """Gives functions the code of ``tree``.

        Raises:
            Cold: the change is not within a function.
        """
        old, new = (compile(s, str(path), "exec", dont_inherit=True) for s in (source, tree))
        for function, code in self._changed(old, new):
            try:
                function.__code__ = code
            except ValueError as error:  # another number of names from around it
                raise Cold from error
        for cache in self.caches:
            cache.cache_clear()

    def _changed(self, old: CodeType, new: CodeType) -> list[tuple[FunctionType, CodeType]]:
        if old == new:
            return []
        inner = list(zip(_codes(old), _codes(new), strict=False))
        if live := self.functions.get(_key(old)):
            within = [pair for o, n in inner for pair in self._within(o, n)]
            return [*((function, new) for function in live), *within]
        if _alone(old) != _alone(new) or len(_codes(old)) != len(_codes(new)):
            raise Cold
        return [pair for o, n in inner for pair in self._changed(o, n)]

    def _within(self, old: CodeType, new: CodeType) -> list[tuple[FunctionType, CodeType]]:
        """Functions that were made by one that changes, before it did."""
        try:
            return self._changed(old, new)
        except Cold:
            return []


def _is_of(cache: functools._lru_cache_wrapper, package: Path) -> bool:
    code = getattr(cache.__wrapped__, "__code__", None)
    return code is not None and code.co_filename.startswith(str(package))


def _key(code: CodeType) -> Key:
    name = getattr(code, "co_qualname", code.co_name)  # since Python 3.11
    return code.co_filename, name, code.co_firstlineno


def _codes(code: CodeType) -> list[CodeType]:
    return [c for c in code.co_consts if isinstance(c, CodeType)]


def _alone(code: CodeType) -> tuple[object, ...]:
    """Without what is defined within."""
    consts = [(type(c), repr(c)) for c in code.co_consts if not isinstance(c, CodeType)]
    return code.co_code, code.co_names, code.co_varnames, consts


class _Loader(SourceFileLoader):
    tree: ast.Module

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.tree, self.path, "exec", dont_inherit=True)


class Finder(importlib.abc.MetaPathFinder):
    """Finds one module as a mutant."""

    def __init__(self, path: Path, package: Path, tree: ast.Module) -> None:
        parts = path.relative_to(package.parent).with_suffix("").parts
        self.name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        self.path = path
        self.loader = _Loader(self.name, str(path))
        self.loader.tree = tree

    def install(self) -> None:
        assert self.name not in sys.modules
        sys.meta_path.insert(0, self)

    def find_spec(self, fullname, path=None, target=None):
        if fullname != self.name:
            return None
        here = [str(self.path.parent)] if self.path.stem == "__init__" else None
        return importlib.util.spec_from_file_location(
            fullname, self.path, loader=self.loader, submodule_search_locations=here
        )
