"""Products of steps: by the faster library, and those of the ordinary one up to rounding."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.compression.grid import Plan
from harness.engine.blocked_linear import BlockedLinear, TiedHead, block_linears
from harness.engine.decode import decode
from harness.engine.prefill import prefill
from harness.engine.rows import Limits, Row
from harness.kernels import products
from harness.kernels.products import by_onednn, of_step, processor, times
from tests.harness.tiny import NAME, STABLE, prompt_of, tiny

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch is without oneDNN")


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """oneDNN computes products of steps, whatever the processor is; the weights that it was given."""
    by_onednn()  # whose trial is not counted
    real, given = products._onednn, list[Tensor]()

    def noted(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        given.append(weight)
        return real(rows, weight, bias)

    monkeypatch.setattr(products, "by_onednn", lambda: True)
    monkeypatch.setattr(products, "_onednn", noted)
    return given


@needs_onednn
@pytest.mark.parametrize("rows", [1, 3, 17, 150])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_both_libraries_multiply_alike(onednn: list[Tensor], rows: int, bias: bool, turned: bool) -> None:
    torch.manual_seed(rows)
    given, weight = torch.randn(rows, 96), torch.randn(96, 80).t() if turned else torch.randn(80, 96)
    given = given.repeat_interleave(2, 0)[::2]  # rows that lie apart
    added = torch.randn(80) if bias else None
    torch.testing.assert_close(times(given, weight, added), functional.linear(given, weight, added))
    assert len(onednn) == 1


@needs_onednn
def test_numbers_of_other_formats_are_multiplied_by_torch(onednn: list[Tensor]) -> None:
    rows, weight = torch.randn(3, 8, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)
    assert torch.equal(times(rows, weight), functional.linear(rows, weight)) and not onednn


@needs_onednn
@pytest.mark.parametrize("bias", [False, True])
def test_layers_use_it_in_a_step_alone(onednn: list[Tensor], bias: bool) -> None:
    torch.manual_seed(0)
    linear, inputs = nn.Linear(96, 1000, bias=bias).requires_grad_(False), torch.randn(2, 9, 96)
    for layer in (BlockedLinear(linear), TiedHead(linear)):
        onednn.clear()
        outside = layer(inputs)
        assert not onednn
        with of_step():
            torch.testing.assert_close(layer(inputs), outside)
        assert onednn
        assert torch.equal(layer(inputs), outside)


@needs_onednn
def test_a_prefill_is_computed_by_torch_and_its_steps_by_onednn(onednn: list[Tensor]) -> None:
    model = deepcopy(tiny(dtype=torch.float32))
    model.lm_head.weight = model.model.embed_tokens.weight
    block_linears(model)
    done = prefill(model, NAME, prompt_of(30), [Plan((30,) * 3, None)], STABLE)
    assert not onednn
    (said,) = decode(model, NAME, [Row(30, done.logits, list(done.kept[0].layers))], Limits(frozenset(), 4))
    # Per step: seven products of each layer, each in one block, and the head.
    assert len(onednn) == 3 * (7 * 3 + 1) and onednn[-1] is model.model.embed_tokens.weight
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "by_onednn", lambda: False)
        assert decode(model, NAME, [Row(30, done.logits, done.kept[0].layers)], Limits(frozenset(), 4)) == [said]


@pytest.fixture
def asked_anew() -> Iterator[None]:
    by_onednn.cache_clear()
    yield
    by_onednn.cache_clear()


def on(monkeypatch: pytest.MonkeyPatch, vendor: str | None, capability: str) -> None:
    monkeypatch.setattr(products, "processor", {"vendor_id": vendor}.get)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)


@needs_onednn
@pytest.mark.parametrize(
    ("vendor", "capability", "used"),
    [
        ("AuthenticAMD", "AVX512", True),
        ("AuthenticAMD", "AVX2", False),
        ("GenuineIntel", "AVX512", False),
        (None, "DEFAULT", False),
    ],
)
@pytest.mark.usefixtures("asked_anew")
def test_it_is_used_where_it_was_measured_to_be_faster(
    monkeypatch: pytest.MonkeyPatch, vendor: str | None, capability: str, used: bool
) -> None:
    on(monkeypatch, vendor, capability)
    assert by_onednn() is used


@pytest.mark.parametrize("fault", ["missing", "wrong"])
@pytest.mark.usefixtures("asked_anew")
def test_it_is_not_used_where_it_is_missing_or_wrong(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    def broken(rows: Tensor, weight: Tensor, *_: Any) -> Tensor:
        if fault == "missing":
            raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")
        return rows @ weight.t() + 0.01

    on(monkeypatch, "AuthenticAMD", "AVX512")
    monkeypatch.setattr(products, "_onednn", broken)
    assert by_onednn() is False


def test_the_system_says_what_its_processor_is(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "processor\t: 0\nvendor_id\t: SomeMaker\nmodel name\t: A: B\n\nprocessor\t: 1\nvendor_id\t: Other\n"
    monkeypatch.setattr(products.Path, "read_text", lambda *_: text)
    assert (processor("vendor_id"), processor("model name"), processor("flags")) == ("SomeMaker", "A: B", None)

    def absent(*_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(products.Path, "read_text", absent)
    assert processor("vendor_id") is None
