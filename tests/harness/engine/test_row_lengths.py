"""Positions whose angles depend on a sequence's length: each row by its own, whatever is decoded beside it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from harness.compression.allocation import Shape
from harness.compression.grid import Plan, Waiting
from harness.compression.scorers import FirstTokens
from harness.engine.engine import Engine
from harness.engine.failures import SelectionFailed
from harness.engine.layer_forms import why_not_plain
from harness.engine.loading import check_against_stock
from harness.engine.positions import beyond_positions
from harness.engine.prefill import prefill
from harness.engine.prefix import Prefiller
from harness.engine.row_lengths import changes_angles
from harness.errors import ConfigError
from tests.harness.engine.test_hybrid import Replaying, stock_batch
from tests.harness.engine.test_stock import METHODS, config_of
from tests.harness.tiny import NAME, STABLE, Cell, Uneven, decode_together, prompt_of

LENGTH = 64
LONGROPE = {
    **{"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 3.0, 4.0, 5.0]},
    **{"original_max_position_embeddings": LENGTH, "rope_theta": 1e4},
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "longrope": ("phi3", {"rope_parameters": LONGROPE, "original_max_position_embeddings": LENGTH}),
    "dynamic": (
        "llama",
        {
            "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4},
            "max_position_embeddings": LENGTH,
        },
    ),
}


def stock_model(kind: str) -> PreTrainedModel:
    family, changes = KINDS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config_of(family, num_hidden_layers=2, **changes)
        )
    return model.train(False)


def our_model(kind: str) -> PreTrainedModel:
    model = stock_model(kind)
    check_against_stock(model, NAME)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_any_length_decode_together_as_each_does_alone(kind: str) -> None:
    lengths = (24, 70, 120) if kind == "longrope" else (50, 70, 120)
    prompts = [prompt_of(length) for length in lengths]
    cells = [Cell(prompt, METHODS[method], 12) for prompt in prompts for method in ("fullkv", "snapkv")]
    outcomes, _ = decode_together(our_model(kind), cells, max_new_tokens=40)
    # transformers keeps the angles of the longest sequence that a model has seen, hence a new model for each.
    expected = [stock_batch(stock_model(kind), [prompt])[0] for prompt in prompts]
    assert [list(row.tokens) for row in outcomes[::2]] == expected
    assert len({token for tokens in expected for token in tokens}) > 3


@pytest.mark.parametrize(
    ("kind", "held", "question", "new", "changes"),
    [
        ("longrope", 24, 0, 41, False),
        ("longrope", 24, 0, 42, True),
        ("longrope", 65, 9, 99, False),
        ("longrope", 60, 5, 1, True),
        ("dynamic", 24, 0, 99, False),
        ("dynamic", 60, 4, 99, False),
        ("dynamic", 60, 5, 1, True),
        ("dynamic", 65, 1, 1, True),
    ],
)
def test_prompt_whose_entries_would_have_other_angles_is_refused(
    kind: str, held: int, question: int, new: int, changes: bool
) -> None:
    config = stock_model(kind).config
    why = beyond_positions(config, held + question, new, question)
    assert (why is not None) == changes
    if why is not None:
        assert why.startswith(f"rope_type={kind} turns all tokens of a sequence of more than 64 tokens by other angles")
    assert changes_angles(config_of("llama"), held, question, new) is None


def test_what_needs_one_set_of_angles_is_refused_or_left_out() -> None:
    model, prompt = our_model("longrope"), prompt_of(60)
    waiting = Waiting(Uneven("layers"), 12, Shape(60, 2, 4, 2, 4))
    with pytest.raises(SelectionFailed) as caught:
        prefill(model, NAME, prompt, [Plan((12, 12), Replaying(prompt_of(30)), waiting)], STABLE)
    assert str(caught.value.__cause__).startswith("a replay of 30 tokens behind the prompt: rope_type=longrope turns")
    with pytest.raises(ConfigError, match="turns kept keys to new positions .* depend on the length of a sequence"):
        prefill(model, NAME, prompt, [Plan((12, 12), FirstTokens(2), rerotates=True)], STABLE)
    assert str(why_not_plain(model.config)).startswith("computes no rows whose angles depend on their length")
    long, plan = prompt_of(100), Plan((100, 100), None)
    prefiller = Prefiller(Engine(model, NAME), STABLE, chunk_tokens=30)
    in_pieces = prefiller.prefill(long, [plan], hold=(50,))
    assert torch.equal(in_pieces.logits, prefill(model, NAME, long, [plan], STABLE).logits)
    assert prefiller.shorten(100) is None
