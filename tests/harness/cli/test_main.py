"""The command line: what it prints, what it refuses, and that bad input costs no finished work."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import kvgauge as package
from harness.cli.commands import COMMANDS
from harness.config.catalog import GROUPS
from tests.conftest import Command

ROOT = Path(__file__).parents[3]
GRID = ("method=published", "budget=[32,64,128]")


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def tokens(prompts_file: Path, tmp_path: Path) -> tuple[str, ...]:
    """A task that takes a second."""
    return (
        "task=tokens",
        f"task.prompts={prompts_file}",
        "task.max_new_tokens=4",
        f"results_dir={tmp_path / 'results'}",
    )


# --- what works


def test_one_cell_ends_in_a_table_and_its_files(kvgauge: Command, tmp_path: Path) -> None:
    done = kvgauge(
        "method=pyramidkv", "budget=128", "task.lengths=[300,400]", "task.depths=[0,100]", f"results_dir={tmp_path}"
    )
    assert done.code == 0, done.err
    assert "prompts: 4; prefills: 4; cells: 1; new records: 4" in done.out
    assert "not what they cost a real model" in " ".join(done.out.split())
    report = tmp_path / "report/tiny/needle"
    assert sorted(path.name for path in report.iterdir()) == [
        "heatmap.png",
        "summary.png",
        "table.csv",
        "table.md",
        "table.tex",
    ]
    cell = tmp_path / "tiny/needle/pyramidkv-128"
    assert json.loads((cell / "scores.json").read_text())["n"] == 4
    assert json.loads((cell / "manifest.json").read_text())["settings"]["budget"] == "128"


def test_prompts_beyond_the_models_positions_are_told_of_before_they_are_computed(
    kvgauge: Command, tmp_path: Path
) -> None:
    (tmp_path / "prompts.json").write_text(json.dumps({"long": [1] * 4100}))
    words = ("task=tokens", f"task.prompts={tmp_path / 'prompts.json'}", "task.max_new_tokens=1", "method=fullkv")
    done = kvgauge(*words, f"results_dir={tmp_path}")
    assert done.code == 0, done.err
    said = "tokens: 1 of 1 prompts are longer than the 4096 positions this model is made for."
    assert -1 < done.out.find(said) < done.out.find("1 of 1 prompts in")
    again = kvgauge(*words, f"results_dir={tmp_path}").out
    assert "new records: 0" in again and said not in again and "0 of 0 prompts" not in again


def test_a_grid_of_13_cells_takes_one_prefill_per_prompt(kvgauge: Command, tokens: tuple[str, ...]) -> None:
    done = kvgauge(*GRID, *tokens)
    assert done.code == 0, done.err
    assert "prompts: 4; prefills: 4; cells: 13; new records: 52" in done.out


def test_the_same_command_again_computes_nothing(kvgauge: Command, tokens: tuple[str, ...], tmp_path: Path) -> None:
    kvgauge(*GRID, *tokens)
    before = snapshot(tmp_path / "results")
    again = kvgauge(*GRID, *tokens)
    assert "prefills: 0; cells: 13; new records: 0, decoded as 0 rows; from earlier runs: 52" in again.out
    assert snapshot(tmp_path / "results") == before


def test_a_further_method_and_budget_add_only_their_cells(
    kvgauge: Command, tokens: tuple[str, ...], tmp_path: Path
) -> None:
    kvgauge("method=snapkv", "budget=32", *tokens)
    first = snapshot(tmp_path / "results/tiny/tokens/snapkv-32")
    more = kvgauge("method=[snapkv,h2o]", "budget=[32,48]", *tokens)
    assert "prefills: 4; cells: 4; new records: 12" in more.out
    assert snapshot(tmp_path / "results/tiny/tokens/snapkv-32") == first


def test_a_raised_limit_adds_only_the_further_examples(kvgauge: Command, tokens: tuple[str, ...]) -> None:
    assert (
        "prompts: 1; prefills: 1; cells: 1; new records: 1"
        in kvgauge("method=snapkv", "budget=32", "limit=1", *tokens).out
    )
    assert "prompts: 4; prefills: 3; cells: 1; new records: 3" in kvgauge("method=snapkv", "budget=32", *tokens).out
    assert (
        "prompts: 2; prefills: 0; cells: 1; new records: 0"
        in kvgauge("method=snapkv", "budget=32", "limit=2", *tokens).out
    )


def test_a_dry_run_tells_what_would_be_done_and_writes_nothing(
    kvgauge: Command, tokens: tuple[str, ...], tmp_path: Path
) -> None:
    dry = kvgauge(*GRID, *tokens, "dry_run=true")
    assert dry.code == 0
    assert "prefills: 4" in dry.out
    assert not (tmp_path / "results").exists()
    done = kvgauge("method=snapkv", "budget=32", *tokens)
    assert done.code == 0
    rows = [line.split() for line in kvgauge(*GRID, *tokens, "dry_run=true").out.splitlines()]
    assert [row[-1] for row in rows if row[:2] == ["snapkv", "32"]] == ["4"]
    assert [row[-1] for row in rows if row[:2] == ["h2o", "32"]] == ["0"]


def test_the_bytes_a_dry_run_promises_are_the_bytes_that_are_kept(
    kvgauge: Command, tokens: tuple[str, ...], tmp_path: Path
) -> None:
    for granularity in ("query_head", "kv_head"):
        results = tmp_path / granularity
        words = (*GRID, *tokens, f"selection.granularity={granularity}", f"results_dir={results}")
        dry = kvgauge(*words, "dry_run=true")
        assert kvgauge(*words).code == 0
        promised = {
            (r[0], r[1]): int(r[3].replace(",", ""))
            for line in dry.out.splitlines()
            if len(r := line.split()) == 6 and "/" in r[2]
        }
        assert len(promised) == 13
        for (label, budget), size in promised.items():
            records = (results / f"tiny/tokens/{label}-{budget}/records.0.jsonl").read_text().splitlines()
            assert size == round(sum(json.loads(line)["kept_bytes"] for line in records) / len(records))


def test_help_fits_a_screen_and_names_the_axes_and_every_command(kvgauge: Command) -> None:
    text = kvgauge("--help").out
    assert len(text.splitlines()) <= 24 and max(map(len, text.splitlines())) <= 80
    assert all(f"{axis}=" in text for axis in GROUPS) and set(COMMANDS) <= set(re.findall(r"\w+", text))


def test_version_is_the_packages(kvgauge: Command) -> None:
    assert kvgauge("--version").out == f"kvgauge {package.__version__}\n"


# ruler_kvpress has settings that the task on tokens has not; tests/tasks/ruler/test_suite.py reads it.
PRESETS = sorted({path.stem for path in (ROOT / "conf/experiment").glob("*.yaml")} - {"ruler_kvpress"})


@pytest.mark.parametrize("preset", PRESETS)
def test_every_experiment_preset_runs(kvgauge: Command, preset: str, tokens: tuple[str, ...]) -> None:
    done = kvgauge(f"experiment={preset}", "model=tiny", "budget=96", *tokens)
    assert done.code == 0, done.err
    methods = "all" if preset == "leaderboard" else "published"
    named = re.findall(r"^  - (\w+)$", (ROOT / f"conf/method/{methods}.yaml").read_text(), re.MULTILINE)
    assert f"cells: {len(named)}" in done.out and len(named) >= 5


def test_a_preset_leaves_methods_out_that_the_command_line_does_not_name(
    kvgauge: Command, tokens: tuple[str, ...]
) -> None:
    done = kvgauge("experiment=needle_published", "method=snapkv", "budget=48", *tokens)
    assert done.code == 0, done.err
    assert "cells: 1;" in done.out


def test_multirun_runs_every_job(kvgauge: Command, tokens: tuple[str, ...], tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    done = kvgauge("-m", "method=snapkv", "budget=32,48", *tokens)
    assert done.code == 0, done.err
    assert sorted(path.parent.name for path in (tmp_path / "results/tiny/tokens").glob("*/scores.json")) == [
        "snapkv-32",
        "snapkv-48",
    ]
    assert {name for name in snapshot(tmp_path) if not name.startswith("results/")} == set(before)


def test_too_short_prompts_for_a_share_are_counted_errors_and_the_exit_code_tells(
    kvgauge: Command, tokens: tuple[str, ...]
) -> None:
    done = kvgauge("method=snapkv", "budget=12%", *tokens)
    assert done.code == 1
    assert (
        "errors of snapkv-12%: 3, the first in example p40: 12% of a prompt of 40 tokens: budget=5 is not above "
        "window=8"
    ) in " ".join(done.out.split())


# --- what is refused

BAD_INPUT = [
    (["budget=0"], 2, "budget=0 is below 1 entry"),
    (["budget=-5"], 2, "budget=-5 is below 1 entry"),
    (["budget=1.0"], 2, "budget=1.0 could mean"),
    (["budget=130%"], 2, "budget=130% is outside 0-100 %"),
    (["budget=abc"], 2, "budget=abc is not a budget"),
    (["budget=[]"], 2, "names no budget"),
    (["budget=8"], 2, "budget=8 is not above window=8 (method=h2o)"),
    (["budget=1%"], 2, "no prompt of the task is long enough for 1% of a prompt of 100 tokens"),
    (["method=nope"], 2, "method=nope is not there: use ada_pyramidkv, "),
    (["method=[fullkv,nope]"], 2, "method=nope is not there: use ada_pyramidkv, "),
    (["method=[fullkv,snapk]"], 2, "method=snapk is not there: did you mean snapkv?"),
    (["hydra/launcher=nope"], 2, "hydra/launcher=nope is not there: use basic, local, ray, slurm"),
    (["method=[]"], 2, "method="),
    (["method.snapkv.widow=3"], 2, "is not a setting of this run: did you mean method.snapkv.window?"),
    (["method.snapkv.knob=[1,2]"], 2, "of this run: method.snapkv has label, window, kernel, pooling; --cfg job"),
    (["selection.foo=1"], 2, "selection has granularity, group, ties, dtype"),
    (["task.foo=1"], 2, "task has name, prompts, max_new_tokens, "),
    (["method.snapk.window=3"], 2, "did you mean method.snapkv.window?"),
    (["method=h2o", "method.snapkv.window=3"], 2, "method= does not name snapkv"),
    (["task=needle", "task.length=[500]"], 2, "task.length is not a setting of this run: did you mean task.lengths?"),
    (["engine.widht=3"], 2, "did you mean engine.width?"),
    (["dryrun=true", "budget"], 2, "budget is no setting: write budget="),
    (["task=needle", "task.haystack=/é"], 2, "needs quotes of its own: write 'task.haystack=\"/é\"'"),
    (["task=needle", "task.haystack=/a,b"], 2, "or, if it is one value, 'task.haystack=\"/a,b\"'"),
    (["results_dir=/a${x}"], 2, "${x} stands for a setting of this run, and none has this name"),
    (["budget=64 method=snapkv"], 2, "is several settings in one word"),
    (["method.snapkv.window=x"], 2, "method=snapkv: window=x is not a whole number"),
    (["method.snapkv.kernel=0"], 2, "method=snapkv: kernel=0"),
    (["method.pyramidkv.schedule=x"], 2, "schedule=x is unknown"),
    (["method.streamingllm.window=3"], 2, "sinks=4 and window=3"),
    (["method.h2o.label=snapkv"], 2, "label=snapkv stands for two methods"),
    (["method.h2o.label=a/b"], 2, "cannot name a folder"),
    (["bugdet=3"], 2, "did you mean budget?"),
    (["+foo=3"], 2, "foo is not a setting"),
    (["budget=[1"], 2, "the list [1 has no end: write it without spaces"),
    (["method=[fullkv,", "snapkv]"], 2, ("the list [fullkv, has no end: write it without spaces, as in "
                                        "method=[snapkv,pyramidkv]")),
    (["method=fullkv,snapkv"], 2, "method=fullkv,snapkv is no list: write method=[fullkv,snapkv]"),
    (["selection.ties=x"], 2, "selection.ties=x is unknown"),
    (["engine.width=0"], 2, "engine.width=0"),
    (["engine.prefill_chunk=0"], 2, "engine.prefill_chunk=0 is no number of tokens"),
    (["engine.exact=3"], 2, "engine.exact=3 is neither true nor false"),
    (["engine.kernels=cuda"], 2, "engine.kernels=cuda is unknown: use auto, torch, onednn or triton"),
    (["engine.kernels=triton", "model.device=cpu"], 2, ("engine.kernels=triton is for CUDA devices, and the model's is "
                                                       "cpu")),
    (["limit=0"], 2, "limit=0"),
    (["results_dir="], 2, "names no folder"),
    (["results_dir=/dev/null/x"], 5, "/dev/null is a file, where a folder is to be: choose another folder"),
    (["results_dir=/proc/kvgauge"], 5, "cannot be written"),
    (["model=3"], 2, "Config group override"),
    (["model=hf"], 2, "model.path is not set"),
    (["model=hf", "model.path=/nope"], 4, "model.path=/nope is not a folder"),
    (["model.device=cuda:99"], 2, "model.device=cuda:99 is not there"),
    (["+selection.foo=1"], 2, "selection is to have after, dtype, granularity, group, ties"),
    (["~engine.width"], 2, ("engine is to have audit, exact, kernels, prefill_chunk, reuse_prefix, "
                           "row_time_limit_seconds, save_tokens, time_limit_seconds, unsaved_tokens, width")),
    (["model.device=null"], 2, "model.device=None is not a text"),
    (["task.stop=[999999]", "task.min_new_tokens=1"], 2, "end token 999999 is none of the model's"),
    (["model.dtype=int8"], 2, "model.dtype=int8 is unknown"),
    (["model.name=../../x"], 2, "cannot name a folder"),
    (["model.name=report"], 2, "model.name=report"),
    (["task=tokens", "task.prompts=/nope"], 3, "task.prompts=/nope cannot be read"),
    (["task=needle", "task.haystack=/nope"], 3, "task.haystack='/nope' is not a folder"),
    (["task=needle", "task.lengths=[150]"], 2, "task.lengths has 150"),
    (["method.snapkv.window=16"], 5, "was made with method.window=8, now it is 16: give method.snapkv.window=[16]"),
    (["task.max_new_tokens=5"], 5, "was made with task.max_new_tokens=4, now it is 5: use another task.name"),
    (["tracker=wandb", "tracker.mode=x"], 2, "tracker.mode=x is unknown"),
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A results folder with finished cells, made once, and the prompts it was made from."""
    folder = tmp_path_factory.mktemp("finished")
    prompts = {f"p{length}": [0, *range(2, length + 1)] for length in (60, 100)}
    (folder / "prompts.json").write_text(json.dumps(prompts))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(("word", "remedy"), [("repot", "use report"), ("xyz", f"use {', '.join(COMMANDS)}")])
def test_an_unknown_command_names_the_nearest_or_all(kvgauge: Command, word: str, remedy: str) -> None:
    done = kvgauge(word, "results")
    assert (done.code, done.out) == (2, "")
    assert done.err == f"kvgauge: {word} is no command: {remedy}; settings of a run are written knob=value\n"


@pytest.mark.parametrize(("words", "code", "message"), BAD_INPUT, ids=[" ".join(words) for words, *_ in BAD_INPUT])
def test_bad_input_is_one_line_and_leaves_finished_cells_as_they_are(
    kvgauge: Command, finished: Path, words: list[str], code: int, message: str
) -> None:
    good = [
        "task=tokens",
        f"task.prompts={finished / 'prompts.json'}",
        "task.max_new_tokens=4",
        f"results_dir={finished / 'results'}",
    ]
    if not (finished / "results").exists():
        assert kvgauge("method=published", "budget=32", *good).code == 0
    before = snapshot(finished / "results")
    named = {word.split("=")[0] for word in words}
    common = [word for word in ("method=published", "budget=32", *good) if word.split("=")[0] not in named]
    if "task=needle" in words:
        common = [word for word in common if not word.startswith("task.")]
    failed = kvgauge(*common, *words)
    assert failed.code == code, failed.err
    assert message in failed.err
    assert failed.err.startswith("kvgauge: ")
    assert failed.err.count("\n") == 1, failed.err
    assert ": " in failed.err.removeprefix("kvgauge: "), "no remedy"
    assert snapshot(finished / "results") == before


SHARDS = {
    "a shard that is not there": '{"metadata": {}, "weight_map": {"lm_head.weight": "gone.safetensors"}}',
    "a shard outside of the folder": '{"metadata": {}, "weight_map": {"lm_head.weight": "../elsewhere.safetensors"}}',
    "shards that are no list": '{"weight_map": [3]}',
}
"""Lists of weights files."""


def bad_model(folder: Path, kind: str) -> Path:
    """A model folder that must not be used."""
    shutil.copytree(ROOT / "models/tiny", folder)
    weights, config = folder / "model.safetensors", folder / "config.json"
    values = json.loads(config.read_text())
    if kind == "no config":
        config.unlink()
    elif kind == "pickle weights":
        weights.rename(folder / "pytorch_model.bin")
    elif kind == "no weights":
        weights.unlink()
    elif kind == "torn weights":
        weights.write_bytes(weights.read_bytes()[:100_000])
    elif kind == "other shapes":
        config.write_text(json.dumps(values | {"num_hidden_layers": 9}))
    elif kind == "config that is not json":
        config.write_text("{")
    elif kind == "unknown family":
        config.write_text(json.dumps(values | {"model_type": "nope"}))
    elif kind == "code of its own":
        config.write_text(json.dumps(values | {"model_type": "nope", "auto_map": {"AutoConfig": "evil.Evil"}}))
        (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Evil: pass\n")
    elif kind == "a link to itself":
        weights.unlink()
        weights.symlink_to(weights)
    elif kind == "weights that are a folder":
        weights.unlink()
        weights.mkdir()
    elif kind == "weights with a header beyond all bounds":
        weights.write_bytes(b"\xff" * 7 + b"\x3f{}")
    elif kind in SHARDS:
        weights.rename(folder.parent / "elsewhere.safetensors")
        (folder / "model.safetensors.index.json").write_text(SHARDS[kind])
    elif kind == "layers without end":
        config.write_text(json.dumps(values | {"num_hidden_layers": 2_000_000}))
    elif kind == "quantized in an unknown way":
        config.write_text(json.dumps(values | {"quantization_config": {"quant_method": "nope"}}))
    elif kind == "no tokenizer":
        for file in folder.glob("tokenizer*"):
            file.unlink()
    return folder


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no config", "has no config.json"),
        ("pickle weights", "reads safetensors and GGUF weights only"),
        ("no weights", "reads safetensors and GGUF weights only"),
        ("torn weights", "mend or fetch its weights"),
        ("other shapes", "has no weights for"),
        ("config that is not json", "mend or fetch its config.json"),
        ("unknown family", "use a family that transformers has"),
        ("code of its own", "no code of a checkpoint is run"),
        ("a link to itself", "Too many levels of symbolic links"),
        ("weights that are a folder", "Is a directory"),
        ("weights with a header beyond all bounds", "mend or fetch its weights"),
        ("a shard that is not there", "gone.safetensors"),
        ("a shard outside of the folder", "names ../elsewhere.safetensors, which is not in the folder"),
        ("shards that are no list", "that is no list of weights"),
        ("layers without end", "num_hidden_layers=2000000, which is not a number of layers, 1 to 1000"),
        ("quantized in an unknown way", "quantized by nope, which is none of the kinds known here"),
        ("no tokenizer", "has no usable tokenizer"),
    ],
)
def test_a_model_folder_that_cannot_be_used_is_one_line(
    kvgauge: Command, tmp_path: Path, kind: str, message: str
) -> None:
    folder = bad_model(tmp_path / "model", kind)
    failed = kvgauge(
        "model=hf",
        f"model.path={folder}",
        "task.lengths=[300]",
        f"results_dir={tmp_path / 'results'}",
        "budget=32",
        "limit=1",
    )
    assert failed.code == 4, failed.err
    assert message in failed.err
    assert failed.err.count("\n") == 1, failed.err
    assert not (folder / "ran").exists()


def test_a_changed_prompt_under_an_old_name_is_refused(
    kvgauge: Command, tokens: tuple[str, ...], prompts_file: Path
) -> None:
    assert kvgauge("method=snapkv", "budget=32", *tokens).code == 0
    prompts = json.loads(prompts_file.read_text())
    prompts["p64"][5] += 1
    prompts_file.write_text(json.dumps(prompts))
    failed = kvgauge("method=snapkv", "budget=32", *tokens)
    assert failed.code == 5
    assert "example 'p64'" in failed.err
    assert "was made from another prompt" in failed.err


def test_a_smaller_run_leaves_the_scores_of_a_finished_cell(
    kvgauge: Command, tokens: tuple[str, ...], tmp_path: Path
) -> None:
    scores = tmp_path / "results/tiny/tokens/snapkv-32/scores.json"
    assert kvgauge("method=snapkv", "budget=32", *tokens).code == 0
    before = scores.read_bytes()
    smaller = kvgauge("method=snapkv", "budget=32", "limit=1", *tokens)
    assert "has more: kvgauge report" in smaller.told
    assert scores.read_bytes() == before
    assert "has more" not in kvgauge("method=snapkv", "budget=32", *tokens).out
    assert "has more" not in kvgauge("method=[snapkv,h2o]", "budget=32", *tokens).out
    assert "has more" in kvgauge("method=h2o", "budget=32", *tokens).out


def test_a_cell_with_other_settings_beside_finished_ones_is_refused(kvgauge: Command, tokens: tuple[str, ...]) -> None:
    assert kvgauge("method=snapkv", "budget=32", *tokens).code == 0
    failed = kvgauge("method=h2o", "budget=32", *tokens, "task.max_new_tokens=5")
    assert failed.code == 5
    assert "snapkv-32 was made with task.max_new_tokens=4, but h2o-32 beside it has 5: use another task" in failed.err


def test_the_full_cache_is_the_same_cell_whatever_the_selection(kvgauge: Command, tokens: tuple[str, ...]) -> None:
    assert kvgauge("method=fullkv", *tokens).code == 0
    assert "prefills: 0" in kvgauge("method=fullkv", "selection.granularity=kv_head", *tokens).out


def test_a_prompt_file_may_grow(kvgauge: Command, tokens: tuple[str, ...], prompts_file: Path) -> None:
    assert kvgauge("method=snapkv", "budget=32", *tokens).code == 0
    prompts = json.loads(prompts_file.read_text())
    prompts_file.write_text(json.dumps({"new": [5, 6, 7], **prompts}))
    assert "prompts: 5; prefills: 1; cells: 1; new records: 1" in kvgauge("method=snapkv", "budget=32", *tokens).out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("{}", "holds no prompt"),
        ("[[1]]", "holds no prompt"),
        ('{"a": []}', "has no token"),
        ('{"a": "text"}', "is not a list of token ids"),
        ('{"a": [1, 2.5]}', "is not a list of token ids"),
        ('{"a": [99999]}', "token id 99999"),
        ('{"a": [-1]}', "token id -1"),
    ],
)
def test_a_bad_prompts_file_is_one_line(
    kvgauge: Command, tokens: tuple[str, ...], prompts_file: Path, text: str, message: str
) -> None:
    prompts_file.write_text(text)
    failed = kvgauge("method=snapkv", "budget=32", *tokens)
    assert failed.code == 3, failed.err
    assert message in failed.err
    assert failed.err.count("\n") == 1
