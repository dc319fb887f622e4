"""What every command of a process does again, done once for a test session; results stay what they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jinja2
import pytest
from hydra._internal.hydra import Hydra


@pytest.fixture(scope="session", autouse=True)
def once() -> Iterator[None]:
    """Let Hydra compose a configuration once per command, and the page's templates be compiled once.

    Hydra composes it a first time to look for ``hydra.mode``, which nothing here sets. Programs that tests start have
    both as users do.
    """
    mode, compile_template, compiled = Hydra.get_mode, jinja2.Environment.compile, dict[Any, Any]()

    def get_mode(hydra: Hydra, config_name: str | None, overrides: list[str]) -> Any:
        named = any(word.lstrip("+").startswith("hydra.mode=") for word in overrides)
        return mode(hydra, config_name, overrides) if named else None

    def compile_once(environment: jinja2.Environment, *words: Any, **named: Any) -> Any:
        key = (words, *named.items())
        if key not in compiled:
            compiled[key] = compile_template(environment, *words, **named)
        return compiled[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hydra, "get_mode", get_mode)
        patch.setattr(jinja2.Environment, "compile", compile_once)
        yield
