"""Folders of the user's, outside the project and outside the results."""

from __future__ import annotations

import os
from pathlib import Path

from harness.errors import ConfigError


def cache_folder() -> Path:
    """Where fetched models and what was made of them are kept: ``$XDG_CACHE_HOME/kvgauge``, or ``~/.cache/kvgauge``.

    Everything in it can be deleted: it is fetched or made again. It may not exist yet.

    Raises:
        ConfigError: there is neither that variable nor a home folder.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(named):  # the standard says to ignore a relative path
        return Path(named) / "kvgauge"
    try:
        return Path.home() / ".cache" / "kvgauge"
    except RuntimeError as error:
        raise ConfigError("this user has no home folder: set XDG_CACHE_HOME to a folder that can be written") from error
