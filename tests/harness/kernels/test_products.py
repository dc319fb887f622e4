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
from harness.engine.decode import decode
from harness.engine.prefill import prefill
from harness.engine.rows import Limits, Row
from harness.engine.settings import choose_kernels
from harness.errors import ConfigError
from harness.kernels import products
from harness.kernels.products import processor, times, why_not_onednn
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
    assert len(onednn) == 1
    assert torch.equal(times(given, weight, added), functional.linear(given, weight, added)) and len(onednn) == 1


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


def test_it_is_for_cpus() -> None:
    with pytest.raises(ConfigError, match="kernels=onednn is for CPUs, and the model's device is cuda: use engine"):
        choose_kernels("onednn", torch.device("cuda"))


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
