"""Products by the faster library: those of the ordinary one up to rounding, and never unless asked for or faster."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.compression.grid import Plan
from harness.engine import settings
from harness.engine.blocked_linear import BlockedLinear, TiedHead, block_linears
from harness.engine.chosen import ChosenKV
from harness.engine.decode import decode
from harness.engine.engine import Engine
from harness.engine.model_spec import ModelSpec
from harness.engine.prefill import prefill
from harness.engine.rows import Limits, Row
from harness.engine.settings import choose_kernels
from harness.errors import ConfigError
from harness.kernels import products
from harness.kernels.products import processor, times, why_not_onednn
from tests.conftest import ROOT
from tests.harness.tiny import NAME, STABLE, prompt_of, tiny

CPU = torch.device("cpu")
needs_onednn = pytest.mark.skipif(why_not_onednn(CPU) is not None, reason="this torch is without oneDNN")


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The weights that oneDNN was given."""
    real, given = products._onednn, list[Tensor]()

    def noted(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        given.append(weight)
        return real(rows, weight, bias)

    monkeypatch.setattr(products, "_onednn", noted)
    return given


@needs_onednn
@pytest.mark.parametrize("rows", [1, 3, 17, 150, 1200])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_both_libraries_multiply_alike(onednn: list[Tensor], rows: int, bias: bool, turned: bool) -> None:
    torch.manual_seed(rows)
    given, weight = torch.randn(rows, 96), torch.randn(96, 80).t() if turned else torch.randn(80, 96)
    given = given.repeat_interleave(2, 0)[::2]  # rows that lie apart
    added = torch.randn(80) if bias else None
    torch.testing.assert_close(times(given, weight, added, "onednn"), functional.linear(given, weight, added))
    assert len(onednn) == -(-rows // 256)
    onednn.clear()
    assert torch.equal(times(given, weight, added), functional.linear(given, weight, added)) and not onednn


@needs_onednn
def test_numbers_of_other_formats_are_multiplied_by_torch(onednn: list[Tensor]) -> None:
    rows, weight = torch.randn(3, 8, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)
    assert torch.equal(times(rows, weight, kernels="onednn"), functional.linear(rows, weight)) and not onednn


@needs_onednn
@pytest.mark.parametrize("bias", [False, True])
def test_layers_are_multiplied_by_the_library_that_they_were_given(onednn: list[Tensor], bias: bool) -> None:
    torch.manual_seed(0)
    linear, inputs = nn.Linear(96, 1000, bias=bias).requires_grad_(False), torch.randn(2, 9, 96)
    for kind in (BlockedLinear, TiedHead):
        onednn.clear()
        expected = kind(linear, "torch")(inputs)
        assert not onednn
        torch.testing.assert_close(kind(linear, "onednn")(inputs), expected)
        assert onednn


@needs_onednn
def test_a_model_is_multiplied_by_it_in_prefills_and_in_steps(onednn: list[Tensor]) -> None:
    found = []
    for kernels in ("torch", "onednn"):
        model = deepcopy(tiny(dtype=torch.float32))
        model.lm_head.weight = model.model.embed_tokens.weight
        block_linears(model, kernels)
        done = prefill(model, NAME, prompt_of(30), [Plan((30,) * 3, None)], STABLE, kernels=kernels)
        # Seven products of each layer, each in one block, and the head.
        assert len(onednn) == (7 * 3 + 1 if kernels == "onednn" else 0)
        row = Row(30, done.logits, list(done.kept[0].layers))
        found += [done.logits, *decode(model, NAME, [row], Limits(frozenset(), 4), kernels=kernels)]
    assert len(onednn) == 4 * (7 * 3 + 1) and onednn[-1] is model.model.embed_tokens.weight
    torch.testing.assert_close(found[0], found[2])
    assert found[1] == found[3]


@pytest.fixture
def tried_anew() -> Iterator[None]:
    for cached in (products._trial, processor):
        cached.cache_clear()
    yield
    for cached in (products._trial, processor):
        cached.cache_clear()


@needs_onednn
@pytest.mark.parametrize(
    ("vendor", "capability", "chosen"),
    [
        ("AuthenticAMD", "AVX512", "onednn"),
        ("AuthenticAMD", "AVX2", "torch"),
        ("GenuineIntel", "AVX512", "torch"),
        (None, "DEFAULT", "torch"),
    ],
)
def test_it_is_chosen_where_it_was_measured_to_be_faster(
    monkeypatch: pytest.MonkeyPatch, vendor: str | None, capability: str, chosen: str
) -> None:
    monkeypatch.setattr(products, "processor", {"vendor_id": vendor}.get)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert [choose_kernels(asked, CPU) for asked in ("auto", "torch", "onednn")] == [chosen, "torch", "onednn"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("missing", "needs oneDNN, which this torch is without"),
        ("wrong", "gives wrong products with this torch"),
    ],
)
@pytest.mark.usefixtures("tried_anew")
def test_it_is_refused_where_it_is_missing_or_wrong(monkeypatch: pytest.MonkeyPatch, fault: str, reason: str) -> None:
    def broken(rows: Tensor, weight: Tensor, *_: Any) -> Tensor:
        if fault == "missing":
            raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")
        return rows @ weight.t() + 0.01

    monkeypatch.setattr(settings, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(products, "_onednn", broken)
    assert choose_kernels("auto", CPU) == "torch"
    with pytest.raises(ConfigError, match=f"^engine.kernels=onednn {reason}: use engine.kernels=auto$"):
        choose_kernels("onednn", CPU)


def test_it_is_for_float32_weights_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="kernels=onednn is for CPUs, and the model's device is cuda: use engine"):
        choose_kernels("onednn", torch.device("cuda"))
    monkeypatch.setattr(settings, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(settings, "why_not_onednn", lambda _: None)
    path = ROOT / "models/tiny"
    for other in ({"dtype": "bfloat16"}, {"device_map": "auto"}, {"tp_plan": "auto"}):
        assert choose_kernels("auto", CPU, None, ModelSpec(str(path), **other).in_blocks(tiny().config)) == "torch"
    plain = ModelSpec(str(path), dtype="float32").in_blocks(tiny().config)
    assert plain and choose_kernels("auto", CPU, None, plain) == "onednn"
    with pytest.raises(ConfigError, match="kernels=onednn is for float32 weights that were loaded onto one CPU: use e"):
        Engine.wrap(deepcopy(tiny()), name="tiny", kernels="onednn")


@needs_onednn
def test_a_loaded_model_is_multiplied_by_it_from_its_prompt_to_its_shared_rows(onednn: list[Tensor]) -> None:
    found = []
    for kernels in ("torch", "onednn"):
        engine = Engine.load(ROOT / "models/tiny", dtype="float32", device="cpu", kernels=kernels)
        onednn.clear()
        plans = [Plan((count,) * engine.layers, None) for count in (28, 29, 30)]
        shape = (engine.model.config.num_hidden_layers, 7)
        done = engine.prefill(prompt_of(30), plans, STABLE)
        assert len(onednn) >= shape[0] * shape[1] if kernels == "onednn" else not onednn
        layers = [layer for kept in done.kept for layer in kept.layers]
        assert {layer.kernels for layer in layers if isinstance(layer, ChosenKV)} == {kernels}
        onednn.clear()
        found.append(engine.decode([Row(30, done.logits, kept.layers) for kept in done.kept], Limits(frozenset(), 3)))
        assert bool(onednn) is (kernels == "onednn")
    assert found[0] == found[1]


@needs_onednn
@pytest.mark.parametrize("count", [256, 257, 300, 1000, 2048])
def test_prompts_of_any_length_are_multiplied_by_few_numbers_of_rows(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, sizes = products._onednn, set[int]()

    def noted(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        sizes.add(len(rows))
        return real(rows, weight, bias)

    rows, weight = torch.randn(count, 48), torch.randn(40, 48)
    whole = real(rows, weight)
    monkeypatch.setattr(products, "_onednn", noted)
    torch.testing.assert_close(times(rows, weight, kernels="onednn"), whole)
    assert all(size <= 256 and size % 32 == 0 for size in sizes)


@pytest.mark.usefixtures("tried_anew")
def test_the_system_says_what_its_processor_is(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "processor\t: 0\nvendor_id\t: SomeMaker\nmodel name\t: A: B\n\nprocessor\t: 1\nvendor_id\t: Other\n"
    monkeypatch.setattr(products.Path, "read_text", lambda *_: text)
    assert (processor("vendor_id"), processor("model name"), processor("flags")) == ("SomeMaker", "A: B", None)
    processor.cache_clear()

    def absent(*_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(products.Path, "read_text", absent)
    assert processor("vendor_id") is None
