"""FullKV against ``generate`` of transformers, family by family; what cannot be evaluated exactly is refused by name,
with the reason."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from harness.compression.grid import Plan
from harness.engine.attention import ENGINE, attention, refuse_config
from harness.engine.decode import decode
from harness.engine.layer_forms import PLAIN
from harness.engine.loading import load_model
from harness.engine.model_spec import ModelSpec
from harness.engine.prefill import prefill
from harness.engine.rows import Limits, Row
from harness.errors import ModelError
from tests.harness.tiny import NAME, STABLE, VOCABULARY, Cell, config, decode_together, methods, prompt_of

pytestmark = pytest.mark.filterwarnings("ignore")
METHODS = methods()
STEPS = 16
ABSENT = object()  # a setting that a family does not have


def config_of(family: str, **changes: Any) -> PretrainedConfig:
    """A tiny configuration of a family, without sliding windows."""
    values: dict[str, Any] = {
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
        },
        **{
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 256,
            "initializer_range": 0.3,
            "sliding_window": None,
        },
        **{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
    }
    return CONFIG_MAPPING[family](**{key: value for key, value in (values | changes).items() if value is not ABSENT})


def save(config: PretrainedConfig, folder: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)  # type: ignore[no-untyped-call]


def spec_of(folder: Path, dtype: str = "float32") -> ModelSpec:
    return ModelSpec(str(folder), NAME, None, dtype, "cpu", None, None, "", None, None, {})


def load(folder: Path) -> PreTrainedModel:
    spec = spec_of(folder)
    return load_model(spec, spec.config())


def stock_tokens(model: PreTrainedModel, prompt: tuple[int, ...], **options: Any) -> list[int]:
    """What transformers' own greedy ``generate`` appends."""
    ids = torch.tensor([prompt])
    found = cast("Any", model).generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, pad_token_id=0, **options
    )
    return cast("list[int]", found[0, len(prompt) :].tolist())


# --- equality

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in ("llama", "mistral", "qwen2", "qwen3", "gemma", "phi3", "olmo2", "granite")},
    "llama-mha": ("llama", {"num_key_value_heads": 4}),
    "llama-mqa": ("llama", {"num_key_value_heads": 1}),
    "llama-rope-llama3": ("llama", {"rope_parameters": {**LLAMA3, "rope_theta": 1e4}}),
    "llama-rope-linear": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}),
    "llama-rope-yarn": ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}}),
    "granite-multipliers": (
        "granite",
        {"attention_multiplier": 0.2, "residual_multiplier": 0.5, "logits_scaling": 4.0},
    ),
    "gemma3-full-layers": (
        "gemma3_text",
        {"layer_types": ["full_attention"] * 3, "sliding_window": 16, "query_pre_attn_scalar": 20},
    ),
    "mixtral": ("mixtral", {"num_local_experts": 4}),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_full_cache_equals_generate_token_for_token(name: str, tmp_path: Path) -> None:
    family, changes = FAMILIES[name]
    save(config_of(family, **changes), tmp_path)
    ours, stock = load(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    prompts = [prompt_of(length) for length in (1, 9, 40, 90)]
    cells = [Cell(prompt, METHODS[method], 12) for prompt in prompts for method in ("snapkv", "fullkv", "pyramidkv")]
    outcomes, _ = decode_together(ours, cells, max_new_tokens=STEPS)
    found = [
        list(outcome.tokens) for cell, outcome in zip(cells, outcomes, strict=True) if cell.method == METHODS["fullkv"]
    ]
    expected = [stock_tokens(stock, prompt, max_new_tokens=STEPS, eos_token_id=None) for prompt in prompts]
    assert found == expected
    assert len({token for tokens in expected for token in tokens}) > 3, "the model says more than one thing"


@pytest.mark.parametrize("least", [0, 1, 3])
def test_stop_tokens_and_least_lengths_equal_those_of_generate(least: int, tmp_path: Path) -> None:
    save(config_of("llama"), tmp_path)
    ours, stock = load(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    prompts = [prompt_of(length) for length in range(10, 34, 3)]
    free = [stock_tokens(stock, prompt, max_new_tokens=STEPS, eos_token_id=None) for prompt in prompts]
    stops = [free[0][0], free[1][4], free[2][1]]
    cells = [Cell(prompt, METHODS["fullkv"], 1) for prompt in prompts]
    outcomes, _ = decode_together(ours, cells, stop_ids=frozenset(stops), max_new_tokens=STEPS, min_new_tokens=least)
    options = {"min_new_tokens": least} if least else {}
    expected = [stock_tokens(stock, prompt, max_new_tokens=STEPS, eos_token_id=stops, **options) for prompt in prompts]
    assert [list(outcome.tokens) for outcome in outcomes] == expected
    assert len({len(tokens) for tokens in expected}) > 2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "auto"])
def test_model_comes_in_the_dtype_that_was_asked_for_and_passes_its_own_check(dtype: str, tmp_path: Path) -> None:
    save(config_of("llama", dtype="bfloat16"), tmp_path)
    spec = spec_of(tmp_path, dtype)
    model = load_model(spec, spec.config())
    assert model.dtype == (torch.float16 if dtype == "float16" else torch.bfloat16)
    assert not model.training


# --- a hook that is missing


def unhook(model: PreTrainedModel, layer: int) -> None:
    """Give one layer the stock attention back."""
    block = cast("Any", model).model.layers[layer].self_attn
    block.config = copy.deepcopy(block.config)
    block.config._attn_implementation = "sdpa"


def test_layer_without_the_hook_stops_the_prefill(tmp_path: Path) -> None:
    save(config(), tmp_path)
    model = load(tmp_path)
    unhook(model, 1)
    with pytest.raises(
        ModelError,
        match="model=tiny: attention of layer 1 of 3 did not reach the engine during prefill, so nothing would",
    ):
        decode_together(model, [Cell(prompt_of(20), METHODS["snapkv"], 8)])


def test_layer_without_the_hook_stops_the_decoding(tmp_path: Path) -> None:
    save(config(), tmp_path)
    model = load(tmp_path)
    cell = Cell(prompt_of(20), METHODS["snapkv"], 8)
    done = prefill(model, NAME, cell.prompt, [cell.plan(3)], STABLE)
    unhook(model, 0)
    unhook(model, 2)
    with pytest.raises(
        ModelError, match="model=tiny: attention of layer 0, 2 of 3 did not reach the engine during decoding step 1"
    ):
        decode(model, NAME, [Row(20, done.logits, done.kept[0].layers)], Limits(frozenset(), 3))


def test_layer_without_the_hook_stops_the_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(config(), tmp_path)
    install = PreTrainedModel.set_attn_implementation

    def install_but_one(model: PreTrainedModel, *arguments: Any, **keywords: Any) -> None:
        install(model, *arguments, **keywords)
        unhook(model, 2)

    monkeypatch.setattr(PreTrainedModel, "set_attn_implementation", install_but_one)
    with pytest.raises(
        ModelError, match="model=tiny: attention of layer 2 of 3 did not reach the engine during prefill"
    ):
        load(tmp_path)


def test_model_without_an_engine_does_not_run(tmp_path: Path) -> None:
    save(config(), tmp_path)
    with pytest.raises(ModelError, match="LlamaAttention was called without the engine"):
        load(tmp_path)(torch.tensor([[1, 2, 3]]))


def test_attention_that_is_not_the_stock_one_stops_the_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(config(), tmp_path)
    monkeypatch.setattr(
        "harness.engine.prefill_attention.causal_attention", lambda queries, keys, values, *_: 0.9 * queries
    )
    with pytest.raises(
        ModelError,
        match=r"model=tiny \(llama\): the engine's logits differ from the stock ones by .* use another family",
    ):
        load(tmp_path)


# --- refusals

FULL = {"layer_types": ["full_attention"] * 3}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "window-without-a-size": (
        "qwen2",
        {"layer_types": ["sliding_attention"] * 3, "sliding_window": None},
        "(qwen2) has sliding_window=None: its layers of layer_types=sliding_attention have no window",
    ),
    "deepseek-v2": (
        "deepseek_v2",
        {},
        "(deepseek_v2) has kv_lora_rank=512: its attention is not plain softmax attention",
    ),
    "deepseek-v3": (
        "deepseek_v3",
        {},
        "(deepseek_v3) has kv_lora_rank=512: its attention is not plain softmax attention",
    ),
    "qwen3-next": ("qwen3_next", {"num_hidden_layers": 4}, "(qwen3_next) has layer_types=linear_attention"),
    "gemma3n": (
        "gemma3n_text",
        {"num_kv_shared_layers": 1, "sliding_window": 8, "layer_types": ["full_attention"] * 3},
        "(gemma3n_text) has num_kv_shared_layers=1: these layers have no keys and values of their own",
    ),
    "t5": ("t5", {}, "(t5) has is_encoder_decoder=True: only decoder-only models are evaluated"),
    "llava": ("llava", {}, "(llava) has text_config=…: only text models are evaluated"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_configuration_that_cannot_be_reproduced_is_refused_by_name_with_the_reason(name: str) -> None:
    family, changes, message = REFUSED[name]
    plain = {} if family in ("t5", "llava") else {"config": config_of(family, **changes)}
    with pytest.raises(ModelError) as caught:
        refuse_config(plain.get("config") or CONFIG_MAPPING[family](), name)
    assert f"model={name} {message}" in str(caught.value)
    assert str(caught.value).endswith("use a full-attention checkpoint")
    assert "\n" not in str(caught.value)


def test_layers_with_heads_of_several_sizes_are_refused_in_one_line(tmp_path: Path) -> None:
    kinds = ["sliding_attention", "full_attention", "full_attention"]
    config_of("gemma4_text", layer_types=kinds, sliding_window=8, num_kv_shared_layers=0).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"model=tiny \(gemma4_text\) has layers that differ in head_dim: use"):
        spec_of(tmp_path).config()


def test_refusal_comes_before_any_weight_is_read(tmp_path: Path) -> None:
    config_of("deepseek_v3").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"model=tiny \(deepseek_v3\) has kv_lora_rank=512"):
        spec_of(tmp_path).config()


ELSEWHERE: dict[str, tuple[str, dict[str, Any], str]] = {
    "bloom": ("bloom", {"n_layer": 2, "n_head": 4}, "model=tiny: attention of layer 0, 1, 2 of 3 did not reach"),
    "gptj": (
        "gptj",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4},
        "attention of layer 0, 1, 2 of 3 did not reach",
    ),
    "falcon": ("falcon", {"head_dim": ABSENT}, "model=tiny: attention of layer 0, 1, 2 of 3 did not reach the engine"),
    "nemotron": ("nemotron", {}, " the engine"),  # called without it, or not reached by it: by version of transformers
    "bert": (
        "bert",
        {"num_key_value_heads": 4, "is_decoder": False},
        "model=tiny (bert): the engine's logits differ from the stock ones",
    ),
    "mistral-stray": (
        "mistral",
        {"sliding_window": 8, "use_sliding_window": False},
        "layer 0 of MistralAttention asks for sliding-window attention of sliding_window=7, and",
    ),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_family_that_does_not_go_through_the_engine_is_refused_when_it_is_loaded(name: str, tmp_path: Path) -> None:
    family, changes, message = ELSEWHERE[name]
    save(config_of(family, **changes), tmp_path)
    with pytest.raises(ModelError) as caught:
        load(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "use another family" in str(caught.value) or "use a f" in str(caught.value), "a remedy that helps"
    assert "through kvgauge" not in str(caught.value) and "safetensors" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sliding_window": 128},
            "layer 3 of Odd asks for sliding-window attention of sliding_window=128, and the model's own configuration "
            "and weights say None: mend its config.json, or use another family",
        ),
        ({"softcap": 50.0}, "layer 3 of Odd asks for soft-capped attention logits of softcap=50.0, and the model's"),
        ({"s_aux": torch.zeros(4)}, "asks for attention sinks in the softmax of s_aux=tensor of (4,), and the model's"),
        (
            {"position_bias": torch.zeros(1, 4, 5, 5)},
            "Odd asks for a position bias (position_bias=tensor of (1, 4, 5, 5))",
        ),
        ({"attention_mask": torch.zeros(1, 1, 5, 5)}, "Odd passes an attention mask of its own"),
        ({"scaling": None}, "Odd does not say how it scales attention logits"),
        (
            {"value": torch.zeros(1, 2, 5, 6)},
            "Odd has keys of 8 and values of 6 dimensions: latent attention is not supported",
        ),
        ({"query": torch.zeros(1, 4, 5, 12)}, "latent attention is not supported"),
        ({"module": SimpleNamespace()}, "SimpleNamespace does not number its layers (layer_idx=None)"),
        ({ENGINE: None}, "Odd was called without the engine"),
    ],
)
def test_call_that_asks_for_other_attention_is_refused(changes: dict[str, Any], message: str) -> None:
    class Odd(nn.Module):
        layer_idx = 3

    class Engine:
        forms = (PLAIN,) * 4

        def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
            assert (layer, scaling) == (3, 0.5)
            return queries.transpose(1, 2)

    call: dict[str, Any] = {
        **{
            "module": Odd(),
            "query": torch.zeros(1, 4, 5, 8),
            "key": torch.zeros(1, 2, 5, 8),
            "value": torch.zeros(1, 2, 5, 8),
        },
        **{"attention_mask": None, "scaling": 0.5, ENGINE: Engine(), "sliding_window": None, "softcap": None},
    }
    assert attention(**call)[0].shape == (1, 5, 4, 8)
    with pytest.raises(ModelError) as caught:
        attention(**call | changes)
    assert message in str(caught.value)


# --- prompts of any length


@pytest.mark.parametrize("length", [1, 2, 130])
def test_prompt_of_any_length_is_prefilled_and_decoded(length: int, tmp_path: Path) -> None:
    save(config_of("llama"), tmp_path)
    model = load(tmp_path)
    plan = Plan((length,) * 3, None)
    done = prefill(model, NAME, prompt_of(length), [plan, plan], STABLE)
    assert done.kept[0] is done.kept[1]
    assert done.kept[0].bytes == done.full_bytes == length * 3 * 2 * 2 * 8 * 4
    assert done.kept[0].tied_heads == 0
