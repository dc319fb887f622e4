"""Models that cannot go past their last position: what does not fit is known before it is computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PretrainedConfig

from harness.engine.positions import beyond_positions, last_position
from tests.conftest import Command
from tests.harness.engine.test_stock import ABSENT, config_of, load, save
from tests.harness.folders import cells, records
from tests.harness.tiny import STABLE, Cell, decode_together, methods, prompt_of

POSITIONS = 48
PLAIN = {"head_dim": ABSENT, "num_key_value_heads": ABSENT, "max_position_embeddings": POSITIONS}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "gpt_bigcode": {},
    "biogpt": {},
    "ctrl": {},
    "bert-generation": {"is_decoder": True},
}


def learned(family: str) -> PretrainedConfig:
    return config_of(family, **(PLAIN | FAMILIES[family]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_decodes_up_to_its_last_position_and_no_further(family: str, tmp_path: Path) -> None:
    config = learned(family)
    assert last_position(config) == POSITIONS
    save(config, tmp_path)
    model = load(tmp_path)
    for prompt, new in ((POSITIONS, 1), (POSITIONS - 3, 4)):
        assert beyond_positions(config, prompt, new) is None
        (found,), _ = decode_together(
            model, [Cell(prompt_of(prompt), methods()["snapkv"], 12)], STABLE, max_new_tokens=new
        )
        assert len(found.tokens) == new
    for prompt, new in ((POSITIONS + 1, 1), (POSITIONS - 3, 5)):
        assert "need 49 positions, and the model has 48" in str(beyond_positions(config, prompt, new))
        with pytest.raises((IndexError, RuntimeError)):
            decode_together(model, [Cell(prompt_of(prompt), methods()["snapkv"], 12)], STABLE, max_new_tokens=new)


@pytest.mark.parametrize("family", ["llama", "qwen3", "phi3", "gpt_neox", "granite", "gemma"])
def test_rotated_positions_have_no_last_one(family: str) -> None:
    config = config_of(family)
    assert last_position(config) is None and beyond_positions(config, 10**6, 1) is None


@pytest.fixture
def words(tmp_path: Path) -> tuple[str, ...]:
    save(learned("gpt2"), tmp_path / "gpt2")
    prompts = {f"p{length}": list(prompt_of(length)) for length in (20, 50, 44, 45, 30)}
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    return (
        "model=hf", f"model.path={tmp_path / 'gpt2'}", "model.name=tiny", "method=[fullkv,streamingllm]", "budget=12",
        "task=tokens", f"task.prompts={tmp_path / 'prompts.json'}",
        "task.max_new_tokens=5", f"results_dir={tmp_path / 'results'}",
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_prompts_past_the_last_position_are_error_records_and_the_others_are_done(
    kvgauge: Command, words: tuple[str, ...], tmp_path: Path
) -> None:
    note = "2 of 5 prompts have no result: with up to 5 new tokens they do not fit into the 48 positions of this model"
    planned = kvgauge(*words, "dry_run=true")
    assert planned.code == 0 and note in planned.told
    done = kvgauge(*words, "wide=true")
    assert done.code == 1 and done.err == "" and note in " ".join(done.out.split())
    for folder in cells(tmp_path / "results").values():
        by_id = {record["example_id"]: record for record in records(folder)}
        assert {name for name, record in by_id.items() if record["error"]} == {"p50", "p45"}
        assert by_id["p45"]["error"].startswith("45 tokens and up to 5 new ones need 49 positions")
        assert all(len(by_id[name]["tokens"]) == 5 for name in ("p20", "p44", "p30"))
    told = kvgauge("status", str(tmp_path / "results")).out
    assert "errors in fullkv-full, streamingllm-12" in told and "everything is whole" not in told


def test_a_task_of_which_no_prompt_fits_is_refused_before_weights_are_read(
    kvgauge: Command, words: tuple[str, ...], tmp_path: Path
) -> None:
    for file in (tmp_path / "gpt2").glob("*.safetensors"):
        file.unlink()
    for last in ("dry_run=true", "dry_run=false"):
        refused = kvgauge(*words, "task.max_new_tokens=40", last)
        assert refused.code == 2 and refused.err.count("\n") == 1
        assert (
            "no prompt of the task fits into the model; even the shortest does not: 20 tokens and up to 40"
            in refused.err
        )


@pytest.mark.filterwarnings("ignore")
def test_a_model_of_few_positions_passes_its_own_check(tmp_path: Path) -> None:
    save(config_of("gpt2", **(PLAIN | {"max_position_embeddings": 10})), tmp_path)
    assert isinstance(load(tmp_path), torch.nn.Module)
