"""A checkpoint that does not fit its configuration is another model than its name says, and is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import ROOT, Command

Words = tuple[str, ...]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "models/tiny", tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def words(folder: Path, prompts_file: Path, tmp_path: Path) -> Words:
    of_task = ("task=tokens", f"task.prompts={prompts_file}", "task.max_new_tokens=2", "method=fullkv")
    return ("model=hf", f"model.path={folder}", *of_task, f"results_dir={tmp_path / 'results'}")


def configure(folder: Path, **values: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def add(folder: Path, *keys: str) -> None:
    file = folder / "model.safetensors"
    save_file(load_file(file) | {key: torch.zeros(4) for key in keys}, file, metadata={"format": "pt"})


def refused(kvgauge: Command, words: Words, *says: str) -> None:
    found = kvgauge(*words)
    assert found.code == 4 and found.err.count("\n") == 1, found.err
    assert all(each in found.err for each in says), found.err


def test_a_layer_too_many_or_too_few_in_the_configuration_is_refused(
    kvgauge: Command, words: Words, folder: Path
) -> None:
    layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    configure(folder, num_hidden_layers=layers - 1, layer_types=None)
    refused(kvgauge, words, "has weights that its config.json has no place for", f"model.layers.{layers - 1}.", "more")
    configure(folder, num_hidden_layers=layers + 1)
    refused(kvgauge, words, "has no weights for model.layers.", "is incomplete")


@pytest.mark.parametrize("key", ["model.layers.0.mlp.up_proj.bias", "model.layers.0.mlp.up_proj.weight_scale"])
def test_weights_that_the_configuration_has_no_place_for_are_refused(
    kvgauge: Command, words: Words, folder: Path, key: str
) -> None:
    add(folder, key)
    refused(kvgauge, words, f"has no place for, {key}, and without them it is another model")


def test_keys_that_many_published_checkpoints_have_and_nothing_needs_are_let_pass(
    kvgauge: Command, words: Words, folder: Path
) -> None:
    add(
        folder,
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.layers.1.attn.masked_bias",
        "v_head.summary.weight",
    )
    done = kvgauge(*words)
    assert done.code == 0 and done.err == ""


def test_an_adapter_beside_full_weights_is_refused_at_the_dry_run(kvgauge: Command, words: Words, folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    refused(kvgauge, (*words, "dry_run=true"), "has an adapter (adapter_config.json)", "merge it")
