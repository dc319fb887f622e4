"""Models with layers that attend to a window, with soft caps and sinks: FullKV against ``generate`` of transformers,
what is kept of a prompt, and guards, each made to fail."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel

from harness.compression.allocation import Shape
from harness.compression.attention_weights import Softmax
from harness.compression.budget import parse_budgets
from harness.compression.grid import Plan, Waiting, make_grid
from harness.compression.method import LayerState, Scorer
from harness.compression.replay import Replay, Replayed
from harness.compression.scorers import FirstTokens
from harness.engine import layer_forms, loading
from harness.engine.decode import decode
from harness.engine.engine import Engine
from harness.engine.layer_forms import LayerForm, Window
from harness.engine.loading import check_against_stock, load_model
from harness.engine.memory import row_bytes
from harness.engine.model_spec import shape_of
from harness.engine.prefill import extend, prefill
from harness.engine.rows import Limits, Row
from harness.engine.settings import choose_kernels
from harness.engine.turns import Turn, next_row
from harness.errors import ConfigError, ModelError
from methods.expected_attention import ExpectedAttention
from tests.conftest import ROOT
from tests.harness.engine.test_stock import ABSENT, METHODS, config_of, load, spec_of
from tests.harness.tiny import NAME, STABLE, Cell, Uneven, decode_together, prompt_of

pytestmark = pytest.mark.filterwarnings("ignore")
STEPS = 40
WINDOW = 16
MIXED = {"layer_types": ["sliding_attention", "full_attention"], "num_hidden_layers": 2, "sliding_window": WINDOW}
MOE = {"num_experts_per_tok": 2, "num_hidden_layers": 2}
CHUNKED = {
    **{"num_hidden_layers": 2, "layer_types": ["chunked_attention", "full_attention"], "no_rope_layers": [1, 0]},
    **{"attention_chunk_size": WINDOW, "sliding_window": ABSENT, "num_local_experts": 2, "intermediate_size_mlp": 48},
    **{"interleave_moe_layer_step": 2, "floor_scale": 8, "attn_scale": 0.5},
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma2": (
        "gemma2",
        {**MIXED, "attn_logit_softcapping": 0.5, "query_pre_attn_scalar": 1, "tie_word_embeddings": False},
    ),
    "gemma3": ("gemma3_text", {**MIXED, "tie_word_embeddings": False}),
    "gpt_oss": (
        "gpt_oss",
        {**MIXED, "num_local_experts": 4, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    ),
    "mistral": ("mistral", {"sliding_window": WINDOW, "num_hidden_layers": 2}),
    "qwen2": ("qwen2", {"sliding_window": WINDOW, "use_sliding_window": True, "max_window_layers": 1}),
    "cohere2": ("cohere2", MIXED),
    "olmo3": ("olmo3", MIXED),
    "phi3": ("phi3", {"sliding_window": WINDOW, "num_hidden_layers": 2}),
    "llama4": ("llama4_text", CHUNKED),
    "exaone4": ("exaone4", MIXED),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0], "num_hidden_layers": 2}),
    "qwen3_moe": (
        "qwen3_moe",
        {**MOE, "num_experts": 4, "moe_intermediate_size": 16},
    ),
    "glm4": ("glm4", {"num_hidden_layers": 2}),
    "granitemoe": ("granitemoe", {**MOE, "num_local_experts": 4}),
}


def stock_model(name: str) -> PreTrainedModel:
    """A random model of transformers, with sinks that do something, unlike those that it begins with."""
    family, changes = FAMILIES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config_of(family, **changes))  # type: ignore[no-untyped-call]
    for parameter, values in model.named_parameters():
        if parameter.endswith("sinks"):
            torch.nn.init.constant_(values, 1.0)
    return model.train(False)


def our_model(name: str) -> PreTrainedModel:
    model = stock_model(name)
    check_against_stock(model, NAME)
    return model


def stock_batch(model: Any, prompts: Sequence[tuple[int, ...]], steps: int = STEPS) -> list[list[int]]:
    """What transformers' own greedy ``generate`` appends to each of a batch of unequal prompts."""
    longest = max(map(len, prompts))
    ids = torch.tensor([(0,) * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    options = {"max_new_tokens": steps, "eos_token_id": None, "pad_token_id": 0, "do_sample": False}
    return cast("list[list[int]]", model.generate(ids, attention_mask=mask, **options)[:, longest:].tolist())


def folder_of(name: str, folder: Path) -> Path:
    stock_model(name).save_pretrained(folder)
    return folder


SLOW = (
    "phi3",
    "olmo3",
    "cohere2",
    "exaone4",
    "qwen3_moe",
    "glm4",
    "granitemoe",
)  # plain attention, or a window as mistral has it


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in FAMILIES]
)
def test_full_cache_equals_generate_token_for_token_within_and_beyond_the_window(name: str) -> None:
    ours, stock = our_model(name), stock_model(name)
    prompts = [prompt_of(length) for length in (3, WINDOW + 1, 61)]
    cells = [Cell(prompt, METHODS[method], 12) for prompt in prompts for method in ("snapkv", "fullkv")]
    if name in ("mistral", "phi3"):  # no layer to compress
        cells = [Cell(prompt, METHODS["fullkv"], 12) for prompt in prompts]
    outcomes, _ = decode_together(ours, cells, max_new_tokens=STEPS)
    found = [list(row.tokens) for cell, row in zip(cells, outcomes, strict=True) if cell.method == METHODS["fullkv"]]
    # Llama 4 counts positions with the padding, so that its batches are not its prompts.
    batches = [[prompt] for prompt in prompts] if name == "llama4" else [prompts]
    expected = [tokens for batch in batches for tokens in stock_batch(stock, batch)]
    assert found == expected
    assert len({token for tokens in expected for token in tokens}) > 3, "the model says more than one thing"


# --- guards, each made to fail


def whole_window(window: Window, position: Any) -> Any:
    return position - window.size + 2 if window.kind == "sliding" else position // (window.size + 1) * (window.size + 1)


def uncapped(softmax: Softmax, logits: Tensor) -> Tensor:
    return logits


def sinkless(softmax: Softmax, logits: Tensor) -> Tensor:
    return logits.softmax(-1)


MUTATIONS: dict[str, tuple[str, type, str, Callable[..., Any]]] = {
    "window off by one": ("qwen2", Window, "first", whole_window),
    "chunk off by one": ("llama4", Window, "first", whole_window),
    "softcap ignored": ("gemma2", Softmax, "capped_", uncapped),
    "sinks ignored": ("gpt_oss", Softmax, "weights", sinkless),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_what_is_computed_wrongly_changes_tokens_and_is_found_when_the_model_is_loaded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, owner, function, wrong = MUTATIONS[name]
    folder = folder_of(family, tmp_path)
    model, cell = load(folder), Cell(prompt_of(61), METHODS["fullkv"], 12)
    (right,), _ = decode_together(model, [cell], max_new_tokens=12)
    monkeypatch.setattr(owner, function, wrong)
    (found,), _ = decode_together(model, [cell], max_new_tokens=12)
    assert found != right
    with pytest.raises(ModelError, match="the engine's logits differ from the stock ones by"):
        load(folder)


TOLD: dict[str, tuple[str, Callable[[LayerForm], LayerForm], str]] = {
    "window": (
        "qwen2",
        lambda form: dataclasses.replace(form, window=form.window and Window("sliding", form.window.size - 1)),
        "asks for sliding-window attention of sliding_window=7, and the model's own configuration and weights say 6",
    ),
    "no window": (
        "mistral",
        lambda form: dataclasses.replace(form, window=None),
        "layer 0 of MistralAttention asks for sliding-window attention of sliding_window=7, and .* say None",
    ),
    "softcap": (
        "gemma2",
        lambda form: dataclasses.replace(form, softcap=None),
        "layer 0 of Gemma2Attention asks for soft-capped attention logits of softcap=0.5, and .* say None",
    ),
    "sinks": (
        "gpt_oss",
        lambda form: dataclasses.replace(form, sinks=None),
        r"layer 0 of GptOssAttention asks for attention sinks in the softmax of s_aux=tensor of \(4,\), .* say None",
    ),
}


@pytest.mark.parametrize("name", TOLD)
def test_call_that_asks_for_other_than_the_layer_is_computed_by_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, changed, message = TOLD[name]
    folder, forms = folder_of(family, tmp_path), layer_forms.layer_forms
    for room in ("prefill", "decode"):
        monkeypatch.setattr(f"harness.engine.{room}.layer_forms", lambda model: tuple(map(changed, forms(model))))
    with pytest.raises(ModelError, match=message) as caught:
        load(folder)
    assert str(caught.value).endswith("mend its config.json, or use another family")


def test_windows_are_narrow_for_the_check_alone() -> None:
    model: Any = our_model("qwen2")
    with loading.narrow_windows(model, 7):
        assert model.config.sliding_window == 7
    assert model.config.sliding_window == WINDOW
    assert [layer.self_attn.sliding_window for layer in model.model.layers] == [None, WINDOW, WINDOW]


# --- what is kept


@pytest.mark.parametrize(("tokens", "sliding", "chunked"), [(3, 3, 3), (16, 15, 0), (17, 15, 1), (61, 15, 13)])
def test_a_window_keeps_what_the_next_token_sees_and_no_more(tokens: int, sliding: int, chunked: int) -> None:
    for kind, needed in (("sliding", sliding), ("chunked", chunked)):
        window = Window(kind, WINDOW)  # type: ignore[arg-type]
        assert window.needed(tokens) == needed
        assert max(0, window.first(tokens)) == tokens - needed


@pytest.mark.parametrize("name", ["gemma3", "llama4"])
def test_bytes_are_those_of_both_kinds_of_layers_and_entries_those_of_the_compressed(name: str) -> None:
    model = our_model(name)
    cells = [Cell(prompt_of(61), METHODS[method], 12) for method in ("fullkv", "snapkv")]
    done = prefill(
        model,
        NAME,
        cells[0].prompt,
        [cell.plan(1, 2) for cell in cells],
        dataclasses.replace(STABLE, granularity="kv_head"),
    )
    windows = [window for window in layer_forms.layer_windows(model.config) if window is not None]
    in_windows, entry = sum(window.needed(61) for window in windows), 2 * 2 * 8 * 4
    full, snap = done.kept
    assert (full.entries, snap.entries) == ((61,), (12,))
    assert (full.bytes, snap.bytes) == ((61 + in_windows) * entry, (12 + in_windows) * entry)
    assert done.full_bytes == full.bytes


@pytest.mark.parametrize("name", ["gemma2", "gpt_oss", "llama4"])
def test_prompt_in_pieces_is_the_whole_prompt(name: str) -> None:
    model, prompt = our_model(name), prompt_of(61)
    plans = [Cell(prompt, METHODS[method], 12).plan(1) for method in ("fullkv", "snapkv", "h2o")]
    whole = prefill(model, NAME, prompt, plans, STABLE)
    past = None
    for stop in (5, 20, 32, 50):
        past = extend(model, NAME, prompt[:stop], plans, STABLE, past)
    pieces = prefill(model, NAME, prompt, plans, STABLE, past)
    torch.testing.assert_close(pieces.logits, whole.logits, rtol=1e-4, atol=1e-4)
    for one, other in zip(pieces.kept, whole.kept, strict=True):
        assert (one.sha256, one.bytes, one.entries) == (other.sha256, other.bytes, other.entries)


@pytest.mark.parametrize("name", ["gpt_oss", "llama4"])
def test_question_through_the_cache_is_the_end_of_the_prompt(name: str) -> None:
    stock, engine = stock_model(name), Engine(our_model(name), NAME)
    for context, question in ((5, 1), (9, 20), (47, 40)):
        prompt = prompt_of(context + question)
        whole = Plan((context,) * engine.layers, None)
        (found,) = engine.generate(prompt[:context], [whole], STABLE, Limits(frozenset(), 10), prompt[context:])
        assert [list(found.tokens)] == stock_batch(stock, [prompt], 10)


@pytest.mark.parametrize("name", ["gemma3", "llama4"])
def test_conversation_goes_on_from_what_windows_hold_after_an_answer(name: str) -> None:
    stock, model = stock_model(name), our_model(name)
    for length, most in ((15, 20), (61, 9)):
        context, question = prompt_of(length), prompt_of(9, 1)
        done = prefill(model, NAME, context, [Plan((length,), None)], STABLE)
        row = Row(length, done.logits, list(done.kept[0].layers), goes_on=True)
        (first,) = decode(model, NAME, [row], Limits(frozenset(), most))
        then = next_row(row, first.tokens, Turn(question, None, None), True, frozenset())
        (second,) = decode(model, NAME, [then], Limits(frozenset(), 10))
        assert [list(second.tokens)] == stock_batch(stock, [(*context, *first.tokens, *question)], 10)


@dataclass(frozen=True)
class Replaying(Scorer):
    """Scores are positions; the replay is some tokens of ours."""

    ids: tuple[int, ...]
    window: ClassVar[int] = 0
    weighs_hidden: ClassVar[bool] = False

    def replays(self, prompt: Sequence[int], encode: Any) -> list[Replay]:
        return [Replay(self.ids, 0, len(prompt))]

    def read(self, layer: LayerState, replay: Replay, replayed: Replayed) -> Tensor:
        return torch.arange(replay.stop, dtype=torch.float32).expand(len(layer.keys), -1)


@pytest.mark.parametrize("name", ["llama4", "gpt_oss"])
def test_replay_is_computed_as_the_end_of_a_longer_prompt(name: str) -> None:
    model: Any = our_model(name)
    prompt, replay = prompt_of(61), prompt_of(30, 1)
    outputs: list[Tensor] = []
    model.model.layers[-1].register_forward_hook(
        lambda _, __, out: outputs.append((out[0] if isinstance(out, tuple) else out).reshape(-1, 32))
    )
    waiting = Waiting(Uneven("layers"), 12, Shape(61, 1, 4, 2, 4))
    prefill(model, NAME, prompt, [Plan((12,), Replaying(replay), waiting)], STABLE)
    prefill(model, NAME, (*prompt, *replay), [], STABLE)
    assert [len(output) for output in outputs] == [61, 30, 91]
    torch.testing.assert_close(outputs[1], outputs[2][61:], rtol=1e-4, atol=1e-4)


def test_methods_keep_of_the_full_layers_of_a_hybrid_what_they_keep_of_a_model_of_these_layers_alone() -> None:
    kinds = ["sliding_attention", "sliding_attention", "full_attention", "full_attention"]
    sizes = {"sliding_window": WINDOW, "use_sliding_window": True, "num_hidden_layers": 4}
    torch.manual_seed(0)
    hybrid: Any = AutoModelForCausalLM.from_config(config_of("qwen2", **sizes, layer_types=kinds))
    check_against_stock(hybrid, NAME)
    prompt, hidden = prompt_of(61), list[Tensor]()
    handle = hybrid.model.layers[1].register_forward_hook(lambda _, __, out: hidden.append(out.reshape(-1, 32)))
    prefill(hybrid, NAME, prompt, [], STABLE)
    handle.remove()
    # The last two layers alone, in a model whose token i is embedded as what comes to them at position i.
    pure: Any = AutoModelForCausalLM.from_config(config_of("qwen2", num_hidden_layers=2))
    layers = hybrid.model.layers.state_dict().items()
    pure.model.layers.load_state_dict({f"{int(name[0]) - 2}{name[1:]}": one for name, one in layers if name[0] > "1"})
    pure.model.embed_tokens.weight = torch.nn.Parameter(hidden[0].clone())
    check_against_stock(pure, NAME)
    expected = ExpectedAttention("expected", sinks=4, future_positions=9, covariance=True, value_norm=True, epsilon=0.0)
    plans = [Cell(prompt, method, 12).plan(2) for method in (*METHODS.values(), expected)]
    of_hybrid = prefill(hybrid, NAME, prompt, plans, STABLE)
    of_pure = prefill(pure, NAME, range(61), plans, STABLE)
    for one, other in zip(of_hybrid.kept, of_pure.kept, strict=True):
        assert (one.sha256, one.entries, one.tied_heads) == (other.sha256, other.entries, other.tied_heads)
        assert [torch.equal(a.keys, b.keys) for a, b in zip(one.layers[2:], other.layers, strict=True)] == [True, True]
    assert len({kept.sha256 for kept in of_pure.kept}) == len(plans)


# --- what is told, taken and refused


def test_layers_with_windows_are_told_to_readers_of_the_numbers() -> None:
    (note,) = layer_forms.layer_notes(config_of(*FAMILIES["gemma3"][:1], **FAMILIES["gemma3"][1]))
    assert note.startswith("1 of this model's 2 layers attend to a sliding window of 16 tokens: they are computed")
    assert note.endswith("Budgets and kept entries are those of the other one; bytes are those of all layers.")
    (note,) = layer_forms.layer_notes(config_of(*FAMILIES["mistral"][:1], **FAMILIES["mistral"][1]))
    assert note.startswith("All layers of this model attend to a sliding window of 16 tokens and keep what it")
    assert layer_forms.layer_notes(config_of("llama")) == []


@pytest.mark.parametrize("name", ["gemma2", "llama4"])
def test_own_kernels_are_refused_for_what_they_do_not_compute(name: str) -> None:
    family, changes = FAMILIES[name]
    config, device = config_of(family, **changes), torch.device("cuda")
    assert choose_kernels("auto", device, config) == "torch"
    with pytest.raises(ConfigError, match="engine.kernels=triton computes no layers with windows of tokens, which"):
        choose_kernels("triton", device, config)


def test_method_has_nothing_to_compress_where_all_layers_have_windows() -> None:
    family, changes = FAMILIES["mistral"]
    shape = shape_of(config_of(family, **changes), 61, STABLE)
    (full, snap) = make_grid([METHODS["fullkv"], METHODS["snapkv"]], parse_budgets(12))
    assert full.plan(shape) == Plan((), None)
    with pytest.raises(ConfigError, match="method=snapkv has nothing to compress in this model, all of whose layers"):
        snap.plan(shape)


def test_method_that_moves_keys_is_refused_where_layers_have_windows() -> None:
    model, prompt = our_model("gemma3"), prompt_of(61)
    with pytest.raises(ConfigError, match="turns kept keys to new positions .* layers with windows"):
        prefill(model, NAME, prompt, [Plan((12,), FirstTokens(2), rerotates=True)], STABLE)


VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.mark.parametrize(
    ("family", "text", "more"),
    [
        ("gemma3", "gemma3", {"mm_tokens_per_image": 4}),
        ("mistral3", "mistral", {}),
        pytest.param("llama4", "llama4", {}, marks=pytest.mark.slow),
    ],
)
def test_of_a_model_that_reads_images_too_the_text_model_is_taken(
    family: str, text: str, more: dict[str, Any], tmp_path: Path
) -> None:
    vision = {**VISION, "image_size": 28, "patch_size": 14}
    inner = config_of(FAMILIES[text][0], **FAMILIES[text][1]).to_dict()
    torch.manual_seed(0)
    outer = CONFIG_MAPPING[family](text_config=inner, vision_config=vision, **more)
    whole = AutoModelForImageTextToText.from_config(outer)
    whole.save_pretrained(tmp_path)
    spec = spec_of(tmp_path)
    config = spec.config()
    assert config.model_type == inner["model_type"]
    engine = Engine(load_model(spec, config), NAME)
    prompt = prompt_of(40)
    (found,) = engine.generate(prompt, [Plan((40,) * engine.layers, None)], STABLE, Limits(frozenset(), 20))
    assert [list(found.tokens)] == stock_batch(whole, [prompt], 20)


def test_tables_of_families_say_what_the_code_says_and_have_all_that_are_tested() -> None:
    spec = importlib.util.spec_from_file_location("families", ROOT / "docs/models.py")
    assert spec is not None and spec.loader is not None
    families = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(families)
    page = (ROOT / "docs/models.md").read_text("utf-8")
    assert families.written(page) == page, "make rooms writes them"
    assert {name.removesuffix("_text") for name, _ in FAMILIES.values()} <= families.FAMILIES.keys()


def test_memory_of_a_row_is_that_of_its_entries_and_of_its_windows() -> None:
    family, changes = FAMILIES["gemma3"]
    config, entry = config_of(family, **changes), 2 * 2 * 8 * 4
    planned = row_bytes(config, torch.float32, [Plan((61,), None)], 61, 10, STABLE)
    assert planned == (61 + 10 + WINDOW) * entry
    assert row_bytes(config, torch.float32, [Plan((4,), None)], 4, 3, STABLE) == (4 + 3 + 7) * entry
