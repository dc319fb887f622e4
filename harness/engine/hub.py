"""The hub: whether it can be reached, asked once, and errors of it in one line with what helps."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from huggingface_hub import constants, get_session, hf_hub_url
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

_PATIENCE_SECONDS = 5
_FOLDER = "give a folder, model=<folder>"


@lru_cache
def is_reachable(model: str, revision: str | None = None) -> bool:
    """Whether the hub answers, by one question about a model; False without one where HF_HUB_OFFLINE is set.

    The hub's own client asks six times within half a minute.

    Args:
        model: a hub id.
        revision: a commit, branch or tag; None for the default branch.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        url = hf_hub_url(model, "config.json", revision=revision, endpoint=constants.ENDPOINT)
        status: int = get_session().head(url, timeout=_PATIENCE_SECONDS).status_code
    except Exception:  # of any of the libraries below; each means that there is no answer
        return False
    return status < 500 and status != 429


def advice(error: BaseException, model: str) -> tuple[str, str] | None:
    """Fact and remedy for an error of the hub; None if it is another error.

    Args:
        error: what loading raised.
        model: the hub id.
    """
    for cause in _causes(error):
        if isinstance(cause, GatedRepoError):
            return (
                "is gated, and this machine has no access",
                f"ask for it at {constants.ENDPOINT}/{model}, then hf auth login or HF_TOKEN=…; or {_FOLDER}",
            )
        if isinstance(cause, RepositoryNotFoundError):
            return (
                f"is neither a folder nor a public model of {constants.ENDPOINT}",
                f"check the id; if it is private, hf auth login or HF_TOKEN=…; or {_FOLDER}",
            )
        if isinstance(cause, LocalEntryNotFoundError):
            why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} does not answer"
            return (
                f"is neither a folder nor in the cache {constants.HF_HUB_CACHE}, and {why}",
                f"hf download {model} where there is a connection, and HF_HOME=… for that cache; or {_FOLDER}",
            )
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
