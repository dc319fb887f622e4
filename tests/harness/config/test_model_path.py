"""Models by their place: a folder, a file or a hub id is the value of ``model=`` as a preset's name is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.config.build import composed
from harness.config.model_path import model_words
from harness.errors import ConfigError
from tests.conftest import ROOT, Command


@pytest.mark.parametrize(
    ("word", "path"),
    [
        ("model=org/name", "org/name"),
        ("model='org/name'", "org/name"),
        ("model=./here", "./here"),
        ("model=a folder, (old) #1", "a folder, (old) #1"),
        ("model=it's/é=1", "it's/é=1"),
        ("model=weights.gguf", "weights.gguf"),
    ],
)
def test_a_place_becomes_the_path_of_the_general_preset(
    word: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a folder, (old) #1").mkdir()
    (tmp_path / "weights.gguf").touch()
    assert composed(word, "limit=1").model.path == path


def test_presets_stay_and_what_is_neither_goes_to_hydra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    words = ["model=tiny", "model=tiny,llama3_8b", "model=nothing", "model.path=x", "budget=32", "-m", "model="]
    assert model_words(words) == words
    assert model_words(["-m", "model=a/b,c/d"]) == ["-m", "model=hf", "model.path='a/b','c/d'"]


def test_home_and_the_folder_itself_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert model_words(["model=~/mine"])[1] == f"model.path='{tmp_path}/mine'"
    assert model_words(["model=."])[1] == f"model.path='{tmp_path}'"


def test_model_path_is_told_the_setting() -> None:
    with pytest.raises(ConfigError, match="model_path is not a setting of this run: use model=/x/y"):
        model_words(["model_path=/x/y"])


def test_results_of_a_folder_carry_its_name(kvgauge: Command, prompts_file: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "models/tiny", tmp_path / "my model/Finder-1.5M")
    done = kvgauge(
        f"model={tmp_path / 'my model/Finder-1.5M'}/", "method=fullkv", "task=tokens", f"task.prompts={prompts_file}",
        "task.max_new_tokens=2", f"results_dir={tmp_path / 'results'}",
    )  # fmt: skip
    assert done.code == 0, done.err
    manifest = json.loads((tmp_path / "results/Finder-1.5M/tokens/fullkv-full/manifest.json").read_text())
    assert manifest["model"] == "Finder-1.5M" and "tokens on Finder-1.5M" in done.out


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_that_is_no_model_is_one_line(kvgauge: Command, name: str) -> None:
    refused = kvgauge(f"model={ROOT / 'models/tiny' / name}", "dry_run=true")
    assert refused.code == 4 and refused.err.count("\n") == 1
    assert "is a file: give a GGUF file, or the folder of a saved transformers model" in refused.err


def test_a_gguf_file_that_is_not_there_is_no_misspelt_preset(kvgauge: Command) -> None:
    refused = kvgauge("model=no-such-model.gguf", "dry_run=true")
    assert refused.code == 4 and refused.err.count("\n") == 1
    assert "model.path=no-such-model.gguf is not there: give the path of a GGUF file" in refused.err
