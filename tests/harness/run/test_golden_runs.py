"""Whole runs of small models, equal to the published code's: a part of its golden data always, the whole where it is
there.

All runs of a model that pick their entries alike share prefills and decode in one wide batch; the published code ran
them one by one. The models' weights are random numbers by a recorded recipe: they are drawn here, and held against a
hash, instead of being stored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from harness.compression.grid import Plan
from harness.compression.method import Method
from harness.compression.selection import Selection
from harness.engine.decode import decode
from harness.engine.loading import load_model
from harness.engine.model_spec import ModelSpec
from harness.engine.prefill import prefill
from harness.engine.rows import Limits, Row
from methods.fullkv import FullKV
from methods.h2o import H2O
from methods.pyramidkv import PyramidKV
from methods.snapkv import SnapKV
from methods.streamingllm import StreamingLLM
from tests.harness.counts import keep_of

Run = dict[str, Any]

ROOT = Path(__file__).parents[3]
ROOTS = {"part": ROOT / "tests/golden/e2e", "whole": ROOT.parent / "shared/golden/e2e"}
COUNTS = {"part": 27, "whole": 107}
STEPS = 24
LOGIT_TOLERANCE = 3e-4  # the smallest gap between the two best logits of any run is 5.8e-4
WEIGHTS_SHA256 = {
    "gqa": "915c97e9ddf081db70279c92fd0f3e73cde045fe363d03b8a1d6e4ba3b369455",
    "mha": "cf89cc489964f8e894beb597662ccb8c316ab2bc0267acc599ab11d118bbe254",
}


# --- the data


def runs(which: str) -> list[Run]:
    return cast("list[Run]", json.loads((ROOTS[which] / "runs.json").read_text())["runs"])


def tie_free_runs(which: str) -> list[Run]:
    """Runs whose scores have no ties at a boundary: without max-pooling, or with nothing to choose."""
    return [
        run
        for run in runs(which)
        if run["method"] in ("FullKV", "StreamingLLM", "H2O")
        or run["options"]["pooling"] == "avgpool"
        or run["budget"] >= run["prompt_len"]
    ]


@lru_cache
def arrays(which: str, file: str) -> dict[str, Any]:
    return dict(np.load(ROOTS[which] / file))


def over(items: Callable[[str], list[Run]]) -> pytest.MarkDecorator:
    """Run a test for everything that ``items`` finds in the part, and as slow tests in the whole."""
    parameters = [pytest.param("part", item, id=f"part-{item['id']}") for item in items("part")]
    if ROOTS["whole"].is_dir():
        slow = pytest.mark.slow
        parameters += [pytest.param("whole", item, id=f"whole-{item['id']}", marks=slow) for item in items("whole")]
    else:
        skip = pytest.mark.skip(reason=f"the whole golden data is not at {ROOTS['whole']}")
        parameters.append(pytest.param("whole", {}, id="whole", marks=[pytest.mark.slow, skip]))
    return pytest.mark.parametrize(("which", "item"), parameters)


def drawn(name: str) -> LlamaForCausalLM:
    """The golden model, its weights drawn in the order in which transformers 4.44 drew them."""
    config = LlamaConfig.from_json_file(ROOTS["part"] / f"model_{name}.json")
    hidden, inner = config.hidden_size, config.intermediate_size
    assert config.num_key_value_heads is not None
    keys = hidden // config.num_attention_heads * config.num_key_value_heads
    sizes = {
        **{
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (hidden, keys),
            "self_attn.v_proj": (hidden, keys),
        },
        **{"self_attn.o_proj": (hidden, hidden), "mlp.gate_proj": (hidden, inner), "mlp.up_proj": (hidden, inner)},
        "mlp.down_proj": (inner, hidden),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        modules: dict[str, nn.Embedding | nn.Linear] = {"model.embed_tokens": nn.Embedding(config.vocab_size, hidden)}
        for layer in range(config.num_hidden_layers):
            modules |= {f"model.layers.{layer}.{name}": nn.Linear(*size, bias=False) for name, size in sizes.items()}
        for module in modules.values():
            nn.init.normal_(module.weight, std=config.initializer_range)
        head = nn.Linear(hidden, config.vocab_size, bias=False)
        nn.init.normal_(head.weight, std=config.initializer_range)
    nn.init.zeros_(modules["model.embed_tokens"].weight[config.pad_token_id].data)
    model = LlamaForCausalLM(config)
    weights = {f"{name}.weight": module.weight for name, module in {**modules, "lm_head": head}.items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.endswith("norm.weight") for name in missing)
    return model


@pytest.mark.parametrize("name", WEIGHTS_SHA256)
def test_weights_are_drawn_as_they_were_for_the_published_code(name: str) -> None:
    digest = hashlib.sha256()
    for key, weight in sorted(drawn(name).state_dict().items()):
        digest.update(key.encode())
        digest.update(weight.numpy().tobytes())
    assert digest.hexdigest() == WEIGHTS_SHA256[name], (
        f"torch {torch.__version__} draws other numbers: the golden data needs torch 2.13"
    )


@pytest.mark.parametrize("which", [which for which, root in ROOTS.items() if root.is_dir()])
def test_no_golden_run_is_left_out(which: str) -> None:
    assert len(runs(which)) == COUNTS[which]


# --- a run as this project sees it


def method_of(run: Run) -> Method:
    window, kernel, pooling = (run["options"][key] for key in ("window", "kernel", "pooling"))
    if run["method"] == "FullKV":
        return FullKV("fullkv")
    if run["method"] == "StreamingLLM":
        return StreamingLLM("streamingllm", None, window)
    if run["method"] == "H2O":
        return H2O("h2o", window, True)
    if run["method"] == "SnapKV":
        return SnapKV("snapkv", window, kernel, pooling)
    assert run["method"] == "PyramidKV"
    return PyramidKV("pyramidkv", window, kernel, pooling, 20, "reference")


def plan_of(run: Run, layers: int) -> Plan:
    method = method_of(run)
    return Plan(tuple(keep_of(method, max(1, run["budget"]), run["prompt_len"], layers)), method.scorer)


@dataclass(frozen=True)
class Outcome:
    """What the engine did for one run.

    Attributes:
        tokens: the new ids.
        logits: [steps, vocabulary].
        heads: cache heads per layer.
        entries: kept entries per layer.
        sha256: of the kept indices.
    """

    tokens: list[int]
    logits: Tensor
    heads: list[int]
    entries: tuple[int, ...]
    sha256: str


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Run, str], Outcome]:
    folders = {name: tmp_path_factory.mktemp(name) for name in WEIGHTS_SHA256}

    @lru_cache
    def model(which: str, name: str) -> PreTrainedModel:
        folder = ROOTS["whole"] / f"model_{name}"
        if which == "part":
            folder = folders[name]
            drawn(name).save_pretrained(folder)
        spec = ModelSpec(str(folder), name, None, "float32", "cpu", None, None, "", None, None, {})
        return load_model(spec, spec.config())

    @lru_cache
    def together(which: str, name: str, granularity: str, group: str, ties: str) -> dict[str, Outcome]:
        members = [run for run in runs(which) if (run["model"], *picking(run)) == (name, granularity, group)]
        prompts = json.loads((ROOTS[which] / "prompts.json").read_text())
        selection = Selection(granularity, group, ties, "float32")  # type: ignore[arg-type]
        rows, shapes, ids = [], [], []
        for length in sorted({run["prompt_len"] for run in members}):
            sharing = [run for run in members if run["prompt_len"] == length]
            plans = [plan_of(run, model(which, name).config.num_hidden_layers) for run in sharing]
            done = prefill(model(which, name), name, prompts[str(length)], plans, selection)
            for run, kept in zip(sharing, done.kept, strict=True):
                ids.append(run["id"])
                shapes.append(([layer.gathered().keys.shape[0] for layer in kept.layers], kept.entries, kept.sha256))
                # Decoding empties a row's list, and plans that keep the same entries share one.
                rows.append(Row(length, done.logits, list(kept.layers)))
        logits: list[list[Tensor]] = [[] for _ in rows]

        def observe(batch: Sequence[int], found: Tensor) -> None:
            for place, row in enumerate(batch):
                logits[row].append(found[place].clone())

        generated = decode(model(which, name), name, rows, Limits(frozenset(), STEPS), observe=observe)
        return {
            id: Outcome(list(new.tokens), torch.stack(seen), *shape)
            for id, new, seen, shape in zip(ids, generated, logits, shapes, strict=True)
        }

    return lambda which, run, ties: together(which, run["model"], *picking(run), ties)[run["id"]]


def picking(run: Run) -> tuple[str, str]:
    return run["options"]["granularity"], run["options"]["gqa_score_agg"]


def check(which: str, run: Run, outcome: Outcome) -> None:
    """Tokens, logits and the sizes of the cache are the published ones."""
    assert run["max_new_tokens"] == STEPS
    assert outcome.tokens == run["tokens"]
    stored = arrays(which, "logits_top20.npz")
    best, value = torch.from_numpy(stored[f"{run['id']}|idx"]).long(), torch.from_numpy(stored[f"{run['id']}|val"])
    assert (outcome.logits.gather(1, best) - value).abs().max() < LOGIT_TOLERANCE
    assert (outcome.logits.scatter(1, best, -torch.inf).amax(1) - value.amin(1)).max() < LOGIT_TOLERANCE
    for layer, (_, heads, length, _) in enumerate(run["final_cache_shape_per_layer"]):
        assert outcome.entries[layer] + STEPS - 1 == length
        # A layer that keeps everything keeps it once per kv head, where the published code may repeat it for every
        # query head.
        assert outcome.heads[layer] == heads or outcome.entries[layer] == run["prompt_len"]


# --- equality


@over(runs)
def test_run_equals_the_published_one(which: str, item: Run, outcomes: Callable[[str, Run, str], Outcome]) -> None:
    outcome = outcomes(which, item, "torch")
    check(which, item, outcome)
    indices = arrays(which, "topk_indices.npz")
    digest = hashlib.sha256()
    for layer, entries in enumerate(outcome.entries):
        if entries == item["prompt_len"]:
            digest.update(b"all")
        elif item["method"] != "StreamingLLM":
            chosen = indices[f"{item['id']}|layer{layer}"].astype(np.int32)
            trailing = np.arange(item["prompt_len"] - item["options"]["window"], item["prompt_len"], dtype=np.int32)
            digest.update(
                np.hstack([np.sort(chosen, axis=-1), np.broadcast_to(trailing, (len(chosen), len(trailing)))]).tobytes()
            )
    if item["method"] != "StreamingLLM":
        assert outcome.sha256 == digest.hexdigest()


@over(tie_free_runs)
def test_run_without_ties_equals_the_published_one_with_the_stable_choice_too(
    which: str, item: Run, outcomes: Callable[[str, Run, str], Outcome]
) -> None:
    check(which, item, outcomes(which, item, "stable"))
