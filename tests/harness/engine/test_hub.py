"""The hub that cannot be reached, or does not let one in: one question, one line."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import constants

from harness.engine.hub import is_reachable
from harness.engine.model_spec import ModelSpec
from tests.conftest import ROOT, Command

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(HTTPServer):
    """Answers every question alike, and counts them."""

    status, code = 200, ""
    asked: list[str]


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:  # the name is the library's
        if "/resolve/" in self.path:  # the hub's client also tells of itself
            self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.send_header("X-Error-Code", self.server.code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    server = Hub(("127.0.0.1", 0), Answer)
    server.asked = []
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    is_reachable.cache_clear()
    yield server
    is_reachable.cache_clear()
    server.shutdown()
    thread.join()
    server.server_close()


def refused(kvgauge: Command, *says: str) -> None:
    found = kvgauge("model=some-org/some-model", "dry_run=true")
    assert found.code == 4 and found.err.count("\n") == 1, found.err
    assert all(each in found.err for each in (*says, "model=<folder>")), found.err


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_that_does_not_serve_is_asked_once(kvgauge: Command, hub: Hub, status: int) -> None:
    hub.status = status
    refused(
        kvgauge, "is neither a folder nor in the cache", "does not answer", "hf download some-org/some-model", "HF_HOME"
    )
    assert len(hub.asked) == 1, hub.asked


def test_a_hub_that_is_not_there_is_one_line(kvgauge: Command, hub: Hub) -> None:
    hub.shutdown()
    hub.server_close()
    refused(kvgauge, f"{constants.ENDPOINT} does not answer")
    assert hub.asked == []


def test_offline_is_said_to_be_what_it_is(kvgauge: Command, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(kvgauge, "nor in the cache", "HF_HUB_OFFLINE is set")
    assert hub.asked == []


def test_a_gated_model_is_told_where_to_ask_and_how_to_log_in(kvgauge: Command, hub: Hub) -> None:
    hub.status, hub.code = 401, "GatedRepo"
    refused(kvgauge, "is gated", f"{constants.ENDPOINT}/some-org/some-model", "hf auth login")
    assert len(hub.asked) <= 2, hub.asked


def test_a_model_that_is_not_there_or_private_is_told_so(kvgauge: Command, hub: Hub) -> None:
    hub.status, hub.code = 401, "RepoNotFound"
    refused(kvgauge, "is neither a folder nor a public model", "hf auth login")
    assert len(hub.asked) <= 2, hub.asked


def test_doctor_says_whether_the_hub_answers(kvgauge: Command, hub: Hub) -> None:
    told = kvgauge("doctor").out
    assert f"{constants.ENDPOINT} answers" in told and "This machine is offline" not in told
    is_reachable.cache_clear()
    hub.status = 503
    told = kvgauge("doctor").out
    assert f"{constants.ENDPOINT} does not answer" in told and "- This machine is offline" in told


def cached(hub_cache: Path) -> Path:
    """A model in the hub's cache, as some-org/some-model."""
    repository = hub_cache / "models--some-org--some-model"
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(ROOT / "models/tiny", snapshot)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT)
    return snapshot


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("by_folder", [False, True])
def test_an_adapter_is_refused_in_a_repository_of_the_hub_as_in_a_folder(
    kvgauge: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, alone: bool, by_folder: bool
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    snapshot = cached(tmp_path)
    (snapshot / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    if alone:
        (snapshot / "config.json").unlink()
    model = str(snapshot) if by_folder else "some-org/some-model"
    found = kvgauge(f"model={model}", "method=fullkv", "dry_run=true")
    assert found.code == 4 and found.err.count("\n") == 1, found.err
    assert f"model.path={model} has an adapter (adapter_config.json), and weights are read without it" in found.err
    assert ("move the adapter's files elsewhere" if by_folder else "give the model that it adapts") in found.err


def test_a_folder_of_the_hubs_cache_is_called_as_its_repository(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    snapshot = cached(tmp_path)
    for model in (str(snapshot), f"{snapshot}/", "some-org/some-model"):
        assert ModelSpec(path=model).label == "some-model" and ModelSpec(path=model).config().model_type == "llama"
    (tmp_path / "snapshots").mkdir()
    assert ModelSpec(path=str(tmp_path / "snapshots" / "step-100")).label == "step-100"
