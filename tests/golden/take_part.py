"""Takes the part of the golden data that the repository holds: ``python tests/golden/take_part.py shared/golden``.

The files keep their names and their layout, so that the same tests run over the part and over the whole.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
DECODED = ("decode/keydiff/i16_t32_b0/mha", "prefilldecode/snapkv8_50_snapkv4/mha", "ratiodecode/tova_r75_i16/mha")
"""Runs of kvpress that compress while decoding."""
DECODING = ("h2o", "tova", "streamingllm", "rkv")
"""Files of methods that evict while decoding, of which the attention outputs are taken too."""

# Runs of whole models: every method, both granularities, both poolings, every edge; each prompt length once at least.
RUNS = [
    "gqa|FullKV|b0|len150",
    "gqa|StreamingLLM|b32|len150",
    "gqa|H2O|b32|len150",
    "gqa|SnapKV|b64|len150",
    "gqa|PyramidKV|b128|len150",
    "gqa|PyramidKV|b32|len400",
    "gqa|SnapKV|b32|len400|avg5",
    "gqa|PyramidKV|b64|len400|avg5",
    "gqa|SnapKV|b96|len400|w32",
    "gqa|H2O|b96|len400|w32",
    "gqa|StreamingLLM|b64|len400|kvh_mean",
    "gqa|SnapKV|b64|len400|kvh_mean",
    "gqa|PyramidKV|b64|len400|kvh_mean",
    "gqa|H2O|b128|len400|kvh_mean",
    "gqa|SnapKV|b32|len400|kvh_max",
    "gqa|PyramidKV|b128|len400|kvh_max",
    "gqa|H2O|b32|len400|kvh_sum",
    "gqa|SnapKV|b64|len64|edge_b64",
    "gqa|H2O|b128|len128|edge_b128",
    "gqa|PyramidKV|b128|len128|edge_b128",
    "gqa|StreamingLLM|b128|len240|edge_b128",
    "gqa|PyramidKV|b64|len1200|avg5",
    "mha|SnapKV|b32|len150",
    "mha|FullKV|b0|len400",
    "mha|H2O|b32|len400",
    "mha|StreamingLLM|b64|len400",
    "mha|PyramidKV|b64|len400|avg5",
]


def covering(cases: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first and the last case of every kind; of the long input every third kind."""
    kinds: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for case in cases:
        sinks = case["budget"] - case["window"] == 4
        window = sinks if case["method"] == "StreamingLLM" else case["window"]
        kind = (
            case["method"],
            case["input"],
            case["kvmode"],
            window,
            case["kernel"],
            case["pooling"],
            case["agg"],
            case["dtype"],
        )
        kinds.setdefault((*kind, case["compressed"]), []).append(case)
    long = [kind for kind in kinds if kind[1] == "T700"]
    ends = [
        case for kind, found in kinds.items() if kind not in long or kind in long[::3] for case in (found[0], found[-1])
    ]
    return list({case["id"]: case for case in ends}.values())


def write(folder: Path, name: str, value: object) -> None:
    (folder / name).write_text(json.dumps(value, separators=(",", ":")) + "\n")


def clusters(whole: Path, part: Path) -> None:
    part.mkdir(exist_ok=True)
    cases = json.loads((whole / "cases.json").read_text())
    chosen = covering(cases["cases"])
    write(part, "cases.json", {**cases, "cases": chosen})
    kept, scores = np.load(whole / "kept_indices.npz"), np.load(whole / "scores.npz")
    np.savez_compressed(part / "kept_indices.npz", **{case["id"]: kept[case["id"]] for case in chosen})
    keys = sorted({case["score_key"] for case in chosen if "score_key" in case and case["input"] != "T700"})
    np.savez_compressed(part / "scores.npz", **{key: scores[key] for key in keys})
    legacy = np.load(whole / "legacy_ffac160_kept_indices.npz")
    np.savez_compressed(
        part / "legacy_ffac160_kept_indices.npz", **{id: legacy[id] for id in legacy.files if "T200" in id}
    )


def runs(whole: Path, part: Path) -> None:
    part.mkdir(exist_ok=True)
    found = json.loads((whole / "runs.json").read_text())
    chosen = [run for run in found["runs"] if run["id"] in RUNS]
    assert len(chosen) == len(RUNS)
    write(part, "runs.json", {**found, "runs": chosen})
    write(part, "prompts.json", json.loads((whole / "prompts.json").read_text()))
    logits, topk = np.load(whole / "logits_top20.npz"), np.load(whole / "topk_indices.npz")
    np.savez_compressed(
        part / "logits_top20.npz", **{key: logits[key] for key in logits.files if key.rpartition("|")[0] in RUNS}
    )
    np.savez_compressed(
        part / "topk_indices.npz", **{key: topk[key] for key in topk.files if key.rpartition("|")[0] in RUNS}
    )
    for model in ("gqa", "mha"):
        (part / f"model_{model}.json").write_text((whole / f"model_{model}/config.json").read_text())


def kvpress(whole: Path, part: Path) -> None:
    """Of each press: one prompt of 420 tokens in each model, and the shortest one."""
    part.mkdir(exist_ok=True)
    settings = json.loads((whole / "variants.json").read_text())
    chosen: dict[str, dict[str, Any]] = {}
    cases = sorted(
        json.loads((whole / "cases.json").read_text()), key=lambda case: (case["tie"] is not None, str(case["level"]))
    )
    for name in settings:
        for model, tokens in (("gqa", 420), ("mha", 420), ("gqa", 64)):
            found = [case for case in cases if (case["variant"], case["model"], case["T"]) == (name, model, tokens)]
            if found:
                chosen[found[0]["id"]] = found[len(found) // 2] if found[len(found) // 2]["tie"] is None else found[0]
    rows: dict[str, list[Any]] = {}
    stored = np.load(whole / "prefill.npz")
    written = []
    for case in chosen.values():
        case = {key: value for key, value in case.items() if key not in ("gap_row", "score_row")}
        for field, array in (
            ("row", "channels" if settings[case["variant"]]["read_by"] == "channels" else "kept"),
            ("tied_row", "tied"),
            ("rekeys_row", "rekeys"),
        ):
            if field in case:
                key = f"{array}_{case['model']}_{case['T']}"
                rows.setdefault(key, []).append(stored[key][case[field]])
                case[field] = len(rows[key]) - 1
        written.append(case)
    write(part, "cases.json", written)
    piped = pipes(whole, part)
    named = dict.fromkeys([case["variant"] for case in written] + [name for name in piped if name != "none"])
    write(part, "variants.json", {name: settings[name] for name in named})
    models = json.loads((whole / "models.json").read_text())
    write(part, "models.json", {key: models[key] for key in ("versions", "models", "prompts", "anchors")})
    np.savez_compressed(part / "prefill.npz", **{key: np.stack(value) for key, value in rows.items()})
    given = np.load(whole / "given.npz")
    np.savez_compressed(part / "given.npz", **{key: given[key] for key in given.files if not key.startswith("sketch")})


def pipes(whole: Path, part: Path) -> list[str]:
    """Of the pipeline one case of every kind and of every press that is more than scores; their variants."""
    found = json.loads((whole / "pipeline.json").read_text())
    kinds: dict[str, dict[str, Any]] = {}
    for case in sorted(found["cases"], key=lambda case: str(case["id"])):
        if case["kind"] == "pipe":
            _, variant, _, _, kind = case["id"].split("/")
            kinds.setdefault(kind, case)
            if variant.partition("_")[0] in ("adakv", "kvzip", "finch", "rerot"):
                kinds.setdefault(variant, case)
    chosen = list({case["id"]: case for case in kinds.values()}.values())
    decoded = [case for case in found["cases"] if case["id"] in DECODED]
    write(part, "pipeline.json", {"cases": [*chosen, *decoded]})
    arrays = np.load(whole / "pipeline.npz")
    names = [case["kept"] for case in chosen]
    names += [name for case in decoded for name in (case["events"], case["events"] + "_meta")]
    names += [case[name] for case in decoded for name in ["prefill_kept_in_cache_order"] if name in case]
    np.savez_compressed(part / "pipeline.npz", **{name: arrays[name] for name in names})
    return [case["id"].split("/")[1] for case in chosen]


def papers(whole: Path, part: Path) -> None:
    """Of every file a rather small case of each kind: reference, head layout, pooling, tie, exception.

    Not taken: codes of an iterative solver (hqq).
    """
    part.mkdir(exist_ok=True)
    for path in sorted(whole.glob("*.json")):
        index = json.loads(path.read_text())
        arrays = np.load(path.with_suffix(".npz"))
        kinds: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for case in index["cases"]:
            params, expect = case["params"], case.get("expect", {})
            if params.get("backend") == "hqq":
                continue
            kind = [
                params.get(name) for name in ("mode", "pooling", "group_agg", "pyram", "cascading", "flow", "variant")
            ]
            kind += [params.get(name) for name in ("kind", "bits", "dtype", "v_bits", "residual_length", "backend")]
            kind += [expect.get(name) for name in ("compressed", "window_tokens_duplicated", "has_constant_group")]
            kinds.setdefault((case["ref"], *kind, case["tie_at_cut"], "raises" in case), []).append(case)
        chosen = [sorted(found, key=lambda case: len(json.dumps(case)))[len(found) // 3] for found in kinds.values()]
        for case in chosen:
            case["arrays"] = {
                name: key
                for name, key in case["arrays"].items()
                if name != "attn_out" or path.stem in (*DECODING, "kivi")
            }
        if "score_sets" in index:
            named = {case["params"].get("score_set") for case in chosen}
            index["score_sets"] = {name: scores for name, scores in index["score_sets"].items() if name in named}
        write(part, path.name, {**index, "n_cases": len(chosen), "cases": chosen})
        np.savez_compressed(
            part / path.with_suffix(".npz").name,
            **{key: arrays[key] for case in chosen for key in case["arrays"].values()},
        )


if __name__ == "__main__":
    golden = Path(sys.argv[1])
    kvpress(golden / "kvpress", HERE / "kvpress")
    clusters(golden / "cluster", HERE / "cluster")
    runs(golden / "e2e", HERE / "e2e")
    papers(golden / "papers", HERE / "papers")
    write(HERE, "pyramid_budgets_q7500_w8.json", json.loads((golden / "pyramid_budgets_q7500_w8.json").read_text()))
