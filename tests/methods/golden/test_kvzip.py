"""KVzip in both forms and with normalisation keeps what kvpress keeps, and wrong formulas do not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.compression.replay import Replay
from harness.errors import ConfigError
from methods.kvzip import BestOfAll, KVzip, RepeatedContext
from tests.methods.golden import kvpress, replays
from tests.methods.golden.kvpress import Bits, Case, cases, over
from tests.methods.golden.wrong import Wrong

WORDS = {
    "first": [3, 3, 4, 5, 6, 7, 8, 9],
    "later": [3, 3, 4, 5, 10, 11, 5, 6, 7, 8, 14, 12, 13],
    "\n": [3],
    "chat": [17, 16],
}
"""The texts of kvpress in the golden data's tokens."""
NEAR = ("kvzip_plus_c128/0.5/mha/150",)
"""Cases that kvpress itself decides otherwise in float64: a gap of 1.1e-6 at the cut, over all heads of the model."""
VARIANTS = ("kvzip_c128", "kvzip_lw_c128", "kvzip_plus_c128", "kvzip_lw_plus_c128", "kvzip_c2048", "kvzip_chat_c128")


def method_of(case: Case) -> KVzip:
    knobs, chat = case.settings, case.settings["chat"]
    texts = ("first", "later", "chat" if chat else "\n")
    normalise = knobs["kvzip_plus_normalization"]
    return KVzip("m", knobs["layerwise"], knobs["chunk_size"], knobs["n_sink"], normalise, *texts, 1 if chat else 0)


def context(case: Case) -> tuple[int, ...]:
    """Its prompt; in a chat it begins with the user's token."""
    ids = kvpress.prompt(case.tokens)
    return (15, *ids[:-1]) if case.settings["chat"] else ids


def kept(case: Case) -> Bits:
    return replays.kept(case, method_of(case), context(case), WORDS.__getitem__)


def unequal(chosen: Sequence[Case]) -> dict[str, str]:
    found = {case.id: kvpress.verdict(case, kept(case)) for case in chosen}
    return {name: said for name, said in found.items() if said not in ("equal", "tie") and name not in NEAR}


@over(*VARIANTS)
def test_kvzip_keeps_what_kvpress_keeps(which: str, variant: str) -> None:
    assert unequal(cases(which, variant)) == {}


# --- formulas that are wrong on purpose

WRONG = {
    "without the last tokens of the chunk before": (
        Wrong(RepeatedContext, "replays", "prompt[start - min(_OVERLAP, self.chunk_size) : start]", "[]"),
        "kvzip_c128",
    ),
    "without sinks in the softmax": (
        Wrong(RepeatedContext, "read", "min(self.sinks, replay.start)", "0"), "kvzip_c128",
    ),
    "the mean for the largest weight": (
        Wrong(RepeatedContext, "read", "weights.amax((0, 1))", "weights.mean((0, 1))"), "kvzip_c2048",
    ),
    # The norm of what is read is the same at every token of these models, whose norms have no weights.
    "without the projected value": (
        Wrong(RepeatedContext, "read", "weights * projected[:, None]", "weights"),
        "kvzip_plus_c128",
    ),
    "layers that do not compete": (Wrong(BestOfAll, "counts", "if self.layerwise", "if True"), "kvzip_c128"),
    "layers that compete": (Wrong(BestOfAll, "counts", "if self.layerwise", "if False"), "kvzip_lw_c128"),
    "first tokens not forced": (
        Wrong(RepeatedContext, "smooth", "forced(scores, first=self.sinks)", "scores"), "kvzip_c128",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_formula_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, variant = WRONG[name]
    wrong.put(monkeypatch)
    replays.scores.cache_clear()
    assert unequal([case for case in cases("part", variant) if case.tokens <= 420]) != {}
    replays.scores.cache_clear()


def test_a_model_without_a_tokenizer_cannot_be_asked_to_repeat() -> None:
    scorer = RepeatedContext(8, 4, False, "first", "later", "\n", 0)
    with pytest.raises(ConfigError, match="there is no tokenizer") as error:
        scorer.replays((1, 2, 3), None)
    assert "\n" not in str(error.value)
    (one, two) = scorer.replays(tuple(range(20, 33)), WORDS.__getitem__)
    assert one == Replay((*WORDS["first"], 3, *range(20, 28)), 0, 8)
    assert two == Replay((*WORDS["later"], *range(20, 28), 3, *range(28, 33)), 8, 13)
