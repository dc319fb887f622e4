"""Formulas that are wrong on purpose: a piece of a function's source is replaced, and a golden case must notice."""

from __future__ import annotations
import __future__

import inspect
import sys
import textwrap
from types import ModuleType
from typing import Any, NamedTuple

import pytest


class Wrong(NamedTuple):
    """One wrong formula.

    Attributes:
        owner: the class that has the function, or another function or class of the module that does.
        name: the function.
        right: a piece of its source.
        wrong: what to put in its place.
    """

    owner: Any
    name: str
    right: str
    wrong: str

    def put(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the wrong formula in the place of the right one."""
        module = sys.modules[self.owner.__module__]
        owner: type | ModuleType = self.owner if self.name in vars(self.owner) else module
        source = textwrap.dedent(inspect.getsource(_plain(vars(owner)[self.name])))
        assert self.right in source, f"{self.name} no longer has {self.right!r}"
        names = dict(vars(module))
        code = compile(
            source.replace(self.right, self.wrong), "<wrong>", "exec", flags=__future__.annotations.compiler_flag
        )
        exec(code, names)
        monkeypatch.setattr(owner, self.name, names[self.name])


def _plain(function: Any) -> Any:
    return function.fget if isinstance(function, property) else function
