"""What is made of a result once, however many files show it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar
from weakref import WeakKeyDictionary

Source = TypeVar("Source")
Made = TypeVar("Made")


def once(make: Callable[[Source], Made]) -> Callable[[Source], Made]:
    """``make``, called once for each argument.

    What it returned is kept as long as the argument lives, and must not be changed.
    """
    made: WeakKeyDictionary[Source, Made] = WeakKeyDictionary()

    @wraps(make)
    def remembered(source: Source) -> Made:
        if source not in made:
            made[source] = make(source)
        return made[source]

    return remembered
