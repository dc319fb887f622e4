"""The last layer of a prefill computes its last rows alone, and nobody sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaMLP

from harness.compression.grid import Plan
from harness.engine import last_layer
from harness.engine.attention import install
from harness.engine.last_layer import LAST_ROWS, last_rows_alone
from harness.engine.layer_forms import layer_windows
from harness.engine.prefill import Prefilled, extend, prefill
from harness.errors import ModelError
from tests.harness.engine.test_stock import config_of, load, save
from tests.harness.tiny import NAME, STABLE, Cell, methods, prompt_of

pytestmark = pytest.mark.filterwarnings("ignore")
TOKENS, ROWS, ALL = 60, 16, 10**9
CUT: dict[str, dict[str, Any]] = {
    **{name: {} for name in ("llama", "gemma", "phi", "phi3", "olmo2", "granite", "qwen3", "cohere")},
    "gemma2": {"layer_types": ["sliding_attention", "full_attention", "full_attention"], "sliding_window": 8},
    "gemma3_text": {"layer_types": ["full_attention"] * 2 + ["sliding_attention"], "sliding_window": 8},
}
LEFT_ALONE: dict[str, dict[str, Any]] = {"mixtral": {"num_local_experts": 4}, "gpt2": {"n_inner": 48}}


def model_of(family: str, **changes: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config_of(family, **changes)).eval()
    install(model)
    return model


def plans_for(model: Any, tokens: int) -> list[Plan]:
    layers = layer_windows(model.config).count(None)
    return [Cell(prompt_of(tokens), method, 12).plan(layers) for method in methods().values()]


def filled(model: Any, rows: int, tokens: int = TOKENS) -> Prefilled:
    return prefill(model, NAME, prompt_of(tokens), plans_for(model, tokens), STABLE, last_rows=rows)


@pytest.mark.parametrize("family", CUT)
def test_the_logits_and_what_is_kept_are_those_of_all_rows(family: str) -> None:
    model = model_of(family, **CUT[family])
    some, every = filled(model, ROWS), filled(model, ALL)
    torch.testing.assert_close(some.logits, every.logits, rtol=1e-5, atol=1e-5)
    assert [kept.sha256 for kept in some.kept] == [kept.sha256 for kept in every.kept]
    states = torch.randn(1, TOKENS, 32)
    mlp = model.model.layers[-1].mlp
    whole = mlp(states)
    with last_rows_alone(model, NAME, TOKENS, ROWS) as rows:
        cut = mlp(states)
    assert rows == ROWS and not cut[:, :-ROWS].any() and whole[:, :-ROWS].any()
    torch.testing.assert_close(cut[:, -ROWS:], whole[:, -ROWS:], rtol=1e-5, atol=1e-5)
    assert torch.equal(mlp(states), whole), "behind the block all rows are computed again"


def test_a_prompt_longer_than_the_last_rows_has_the_same_logits_to_the_bit() -> None:
    model, tokens = model_of("llama", hidden_size=64, intermediate_size=128), LAST_ROWS + 77
    assert torch.equal(filled(model, LAST_ROWS, tokens).logits, filled(model, ALL, tokens).logits)


def test_a_prompt_goes_on_from_a_beginning_as_it_does_from_nothing() -> None:
    model, prompt = model_of("llama"), prompt_of(2 * LAST_ROWS + 100)
    plans = plans_for(model, len(prompt))
    past = extend(model, NAME, prompt[: LAST_ROWS + 50], plans, STABLE)
    on = prefill(model, NAME, prompt, plans, STABLE, past)
    anew = prefill(model, NAME, prompt, plans, STABLE, last_rows=ALL)
    torch.testing.assert_close(on.logits, anew.logits, rtol=1e-4, atol=1e-4)
    assert [kept.sha256 for kept in on.kept] == [kept.sha256 for kept in anew.kept]


@pytest.mark.parametrize("family", LEFT_ALONE)
def test_a_layer_of_experts_or_of_other_modules_computes_all_rows(family: str) -> None:
    with last_rows_alone(model_of(family, **LEFT_ALONE[family]), NAME, TOKENS, ROWS) as rows:
        assert rows is None


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.to(torch.bfloat16),
        lambda model: model.model.layers[-1].register_forward_hook(lambda *_: None),
        lambda model: model.model.layers[-1].mlp.down_proj.register_forward_pre_hook(lambda *_: None),
    ],
    ids=["half precision", "a hook on the layer", "a hook in the layer"],
)
def test_all_rows_are_computed_where_fewer_would_round_otherwise_or_be_read(change: Callable[[Any], object]) -> None:
    model = model_of("llama")
    for tokens, expected in ((TOKENS, ROWS), (ROWS, None)):
        with last_rows_alone(model, NAME, tokens, ROWS) as rows:
            assert rows == expected
    change(model)
    with last_rows_alone(model, NAME, TOKENS, ROWS) as rows:
        assert rows is None


def test_the_layer_where_numbers_break_is_found_by_all_rows() -> None:
    """A first token that breaks in the last layer alone reaches nothing, whether its row is computed or not."""
    model = model_of("llama")
    model.model.layers[-1].mlp.down_proj.weight.data[0, 0] = torch.nan
    for rows in (ROWS, ALL):
        assert filled(model, rows).broken == "in the output of layer 2 (of 0 to 2)"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.model.layers.modules())


# --- the check when a model loads


def test_rows_put_in_wrong_places_stop_the_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(config_of("llama"), tmp_path)
    right = last_layer._put_back

    def moved(*given: Any) -> Tensor | None:
        every = right(*given)
        return None if every is None else every.roll(1, dims=-2)

    monkeypatch.setattr(last_layer, "_put_back", moved)
    with pytest.raises(ModelError, match="or its last layer mixes tokens elsewhere"):
        load(tmp_path)


def test_an_mlp_that_mixes_tokens_stops_the_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(config_of("llama"), tmp_path)
    alone = LlamaMLP.forward

    def mixing(self: LlamaMLP, states: Tensor) -> Tensor:
        return alone(self, states.cumsum(1))

    monkeypatch.setattr(LlamaMLP, "forward", mixing)
    with pytest.raises(ModelError, match="or its last layer mixes tokens elsewhere"):
        load(tmp_path)
