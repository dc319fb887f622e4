"""Presets of models: they load nothing here, and LongBench takes its limits and its chat template from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir

from harness.config.build import build, register_resolvers
from harness.config.catalog import ROOT
from harness.engine.model_spec import ModelSpec
from harness.errors import ConfigError
from tasks.longbench.suite import LongBench

PRESETS = sorted(path.stem for path in (ROOT / "conf/model").glob("*.yaml"))
HUB = [name for name in PRESETS if name not in ("hf", "tiny", "smollm2_135m")]
LIMITS = {
    "llama3_8b": {"longbench": 7500, "kvcache_factory": 7500, "paper": 7950},
    "llama3_70b": {"longbench": 7500, "kvcache_factory": 7500, "paper": 7950},
    "llama31_8b": {"longbench": 120000, "kvcache_factory": 7500, "paper": 7950},
    "mistral_7b": {"longbench": 31500, "kvcache_factory": 31500, "paper": 31500},
    "qwen25_7b": {"longbench": 31500, "kvcache_factory": 31500, "paper": 31500},
    "qwen3_8b": {"longbench": 31500, "kvcache_factory": 31500, "paper": 31500},
    "smollm2_135m": {"longbench": 7500, "kvcache_factory": 7500, "paper": 7500},
    "tiny": {"longbench": 3500, "kvcache_factory": 3500, "paper": 3500},
    "hf": {"kvcache_factory": 7500, "paper": 7950},
}


def composed(*words: str) -> Any:
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", overrides=["task=longbench", "task.datasets=[qasper,trec]", *words])


def suite(*words: str) -> LongBench:
    built: LongBench = build(composed(*words).task)
    return built


@pytest.mark.parametrize("preset", HUB)
def test_a_preset_is_a_model_of_the_hub_without_a_guessed_commit(preset: str) -> None:
    spec: ModelSpec = build(composed(f"model={preset}").model)
    assert spec.path.count("/") == 1
    assert spec.label == preset.replace("_", "-")
    assert spec.revision is None
    assert spec.dtype == "bfloat16"
    text = (ROOT / f"conf/model/{preset}.yaml").read_text()
    assert "revision: null" in text
    assert "None of the sources names a commit" in text


def test_every_knob_of_a_model_stands_in_the_file_that_presets_build_on() -> None:
    knobs = set(yaml.safe_load((ROOT / "conf/model/hf.yaml").read_text())) - {"_target_"}
    assert knobs == set(ModelSpec.__dataclass_fields__)
    assert {*yaml.safe_load((ROOT / "conf/model/tiny.yaml").read_text())} - {"_target_"} == knobs


@pytest.mark.parametrize(
    ("preset", "protocol"), [(preset, protocol) for preset in PRESETS for protocol in LIMITS[preset]]
)
def test_longbench_takes_the_limit_of_the_model_under_the_protocol(preset: str, protocol: str) -> None:
    tasks = suite(f"model={preset}", f"task.protocol={protocol}").tasks()
    assert [task.max_prompt_tokens for task in tasks] == [LIMITS[preset][protocol]] * 2
    wrapped = protocol != "paper" and preset not in ("tiny", "mistral_7b")
    assert [task.chat for task in tasks] == [wrapped, False]


def test_a_model_that_says_nothing_is_asked_for_a_limit_where_the_protocol_has_none() -> None:
    with pytest.raises(ConfigError, match="another limit for each model"):
        suite("model=hf", "task.protocol=longbench").tasks()


def test_the_command_line_overrules_the_preset() -> None:
    (task, _) = suite("model=mistral_7b", "task.max_prompt_tokens=100", "task.chat=true").tasks()
    assert (task.max_prompt_tokens, task.chat) == (100, True)
    (task, few_shot) = suite("model=mistral_7b", "task.chat=auto").tasks()
    assert (task.chat, few_shot.chat) == ("auto", False)
    for words in (
        ("task.max_prompt_tokens=100",),
        ("model.max_prompt_tokens=100",),
        ("task.max_prompt_tokens={kvcache_factory: 100}",),
    ):
        (task, _) = suite("model=llama3_8b", *words).tasks()
        assert task.max_prompt_tokens == 100
    (task, _) = suite("model=qwen3_8b").tasks()
    assert task.chat_arguments == {"enable_thinking": False}
    (task, _) = suite("model=qwen3_8b", "task.chat_arguments={enable_thinking: true}").tasks()
    assert task.chat_arguments == {"enable_thinking": True}


def test_the_published_experiment_is_the_papers_protocol_on_16_datasets() -> None:
    with initialize_config_dir(str(Path(ROOT) / "conf"), version_base="1.3"):
        config = compose("config", overrides=["experiment=longbench_published", "model=llama3_8b"])
    tasks = build(config.task).tasks()
    assert len(tasks) == 16
    assert {(task.max_prompt_tokens, task.chat, task.protocol.all_end_tokens) for task in tasks} == {
        (7950, False, False)
    }
    assert config.budget == [64, 96, 128, 256, 512, 1024, 2048]
    assert list(config.method) == ["fullkv", "streamingllm", "h2o", "snapkv", "pyramidkv"]
    assert config.model.dtype == "float16"
