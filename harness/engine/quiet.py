"""Quiet reading: transformers logs what kvgauge says itself, in one line, or refuses."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils.logging import get_verbosity, set_verbosity


@contextmanager
def quiet() -> Iterator[None]:
    """Let transformers log errors alone in the body."""
    before = get_verbosity()
    set_verbosity(max(before, logging.ERROR))
    try:
        yield
    finally:
        set_verbosity(before)
