"""What a patch is: the symbol that it changes, the reason, and a function that changes it once."""

from __future__ import annotations

import functools
import importlib
import inspect
from typing import Any, Callable

_MARK = "_fairseq_adv_patch"  # on a replacement: the name of the patch that made it
Replacement = Callable[[Callable[..., Any]], Callable[..., Any]]


class Patch:
    """One repair. ``symbol`` is the dotted name that it changes, ``reason`` the docstring of its function."""

    def __init__(self, symbol: str, install: Callable[[], None], function: Callable[..., Any]) -> None:
        self.symbol = symbol
        self.function = function
        self.name = function.__name__
        self.reason = inspect.cleandoc(function.__doc__ or "")
        self.applied = False
        self._install = install

    @property
    def summary(self) -> str:
        """The first sentence of the reason, on one line."""
        return " ".join(self.reason.split("\n\n")[0].split())

    def apply(self) -> None:
        """Change the symbol; does nothing the second time."""
        if not self.applied:
            self._install()
            self.applied = True


def patch(symbol: str) -> Callable[[Callable[[], None]], Patch]:
    """Decorate a function without arguments that changes *symbol* by itself."""
    return lambda install: Patch(symbol, install, install)


def replaces(symbol: str) -> Callable[[Replacement], Patch]:
    """Decorate a function that maps the original callable at *symbol* to its replacement.

    The replacement carries the original's name, docstring and attributes. It is put where fairseq looks the
    name up, so *symbol* must be the attribute of the module (or class) that the callers read.
    """

    def decorate(make: Replacement) -> Patch:
        return Patch(symbol, lambda: _replace(symbol, make), make)

    return decorate


def _replace(symbol: str, make: Replacement) -> None:
    owner_name, _, name = symbol.rpartition(".")
    owner = resolve(owner_name)
    original = getattr(owner, name)
    if getattr(original, _MARK, None) == make.__name__:
        return
    attributes = () if inspect.isclass(original) else ("__dict__",)  # fairseq keeps state on functions
    replacement = functools.wraps(original, updated=attributes)(make(original))
    setattr(replacement, _MARK, make.__name__)
    setattr(owner, name, replacement)


def resolve(dotted: str) -> Any:
    """The module ``a.b`` or, if there is none, the attribute ``b`` of ``a``."""
    owner, _, name = dotted.rpartition(".")
    try:
        return importlib.import_module(dotted)
    except ModuleNotFoundError as error:
        if not owner or error.name is None or not dotted.startswith(error.name):
            raise  # a module that *dotted* needs is missing, not *dotted* itself
    return getattr(resolve(owner), name)
