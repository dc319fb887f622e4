"""Shards of one command: the same results as one process, whatever order and number they come in; errors that are
tried again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from harness.engine import engine as engine_module
from harness.errors import ConfigError
from harness.launchers import expand
from harness.store.cells import CellWriter
from harness.store.manifest import read_manifest
from harness.store.shards import Shard
from tests.conftest import Command, Finished
from tests.harness.folders import cells, outcome, records

NAMES = ["p40", "p64", "p65", "p100"]


@pytest.fixture
def run(kvgauge: Command, prompts_file: Path, tmp_path: Path) -> Callable[..., Finished]:
    """A grid of two cells and four prompts, with some words more."""
    words = (
        "method=[fullkv,snapkv]",
        "budget=32",
        "task=tokens",
        f"task.prompts={prompts_file}",
        "task.max_new_tokens=4",
        "engine.width=1",
    )
    return lambda *more: kvgauge(*words, f"results_dir={tmp_path / 'results'}", *more)


@pytest.fixture
def undisturbed(kvgauge: Command, run: Callable[..., Finished], tmp_path: Path) -> dict[str, dict[str, Any]]:
    """What one process makes of it."""
    assert run(f"results_dir={tmp_path / 'undisturbed'}").code == 0
    return outcome(tmp_path / "undisturbed")


def doubled(results: Path) -> list[str]:
    """Examples that a cell has more than one record of."""
    found = [[of["example_id"] for of in records(cell)] for cell in cells(results).values()]
    return [name for names in found for name in set(names) if names.count(name) > 1]


def test_three_shards_make_what_one_process_makes_and_the_last_one_reports(
    run: Callable[..., Finished], undisturbed: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    for shard, mine in ((2, 1), (0, 2)):
        done = run("shards=3", f"shard={shard}")
        assert done.code == 0, done.err
        assert f"prompts: {mine}; prefills: {mine}; cells: 2; new records: {2 * mine}" in done.out
        assert (
            f"shard {shard} of 3 is done; scores come with the other shards (1 of 1 tasks wait): kvgauge status"
            in done.told
        )
        assert not (tmp_path / "results/report").exists()
        assert not list((tmp_path / "results").rglob("scores.json"))
    last = run("shards=3", "shard=1")
    assert last.code == 0 and "index.html" in last.out and "wait" not in last.out
    assert outcome(tmp_path / "results") == undisturbed
    assert "new records: 0" in run("shards=3", "shard=0").out


def test_another_number_of_shards_goes_on_from_what_is_there_and_one_process_makes_one_file_of_it(
    run: Callable[..., Finished], undisturbed: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    assert "new records: 4" in run("shards=2", "shard=1").out  # p64, p100
    assert "new records: 2" in run("shards=3", "shard=0").out  # p40; p100 is there
    assert "new records: 2, decoded as 2 rows; from earlier runs: 6" in run().out
    assert outcome(tmp_path / "results") == undisturbed and not doubled(tmp_path / "results")
    assert [path.name for path in sorted((tmp_path / "results/tiny/tokens/snapkv-32").glob("records.*"))] == [
        "records.0.jsonl"
    ]


@pytest.mark.parametrize(
    ("holder", "words", "refused"),
    [
        (Shard(1, 3), (), True),
        (Shard(1, 3), ("shards=3", "shard=1"), True),
        (Shard(1, 3), ("shards=2", "shard=0"), True),
        (Shard(1, 3), ("shards=3", "shard=0", "limit=2"), True),
        (Shard(0, 1), ("shards=3", "shard=0"), True),
        (Shard(1, 3), ("shards=3", "shard=0"), False),
    ],
    ids=["alone", "the same shard", "another number", "other examples", "a shard beside one alone", "another shard"],
)
def test_only_shards_of_one_split_write_beside_each_other(
    run: Callable[..., Finished], tmp_path: Path, holder: Shard, words: tuple[str, ...], refused: bool
) -> None:
    assert run("shards=3", "shard=2").code == 0
    folder = tmp_path / "results/tiny/tokens/snapkv-32"
    manifest = read_manifest(folder)
    assert manifest is not None
    with closing(CellWriter(folder, manifest, holder.worker(NAMES))):
        done = run(*words)
    assert done.code == (5 if refused else 0), done.err
    if refused:
        assert "is being written by another run" in done.err and done.err.count("\n") == 1


def test_what_another_run_wrote_while_the_model_was_loaded_is_not_computed_again(
    run: Callable[..., Finished],
    undisturbed: dict[str, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load, results = engine_module.load_model, tmp_path / "results"
    assert run("shards=2", "shard=0", f"results_dir={tmp_path / 'other'}").code == 0

    def slow(*words: Any) -> Any:
        shutil.copytree(tmp_path / "other", results, dirs_exist_ok=True)
        return load(*words)

    monkeypatch.setattr(engine_module, "load_model", slow)
    done = run()
    assert done.code == 0, done.err
    assert "new records: 4, decoded as 4 rows; from earlier runs: 4" in done.out
    assert outcome(results) == undisturbed and not doubled(results)


def spoil(results: Path, example: str) -> None:
    """Put an error in the place of a result."""
    for cell in cells(results).values():
        for path in cell.glob("records.*.jsonl"):
            found = [json.loads(line) for line in path.read_text().splitlines()]
            blank = {"tokens": [], "text": None, "scores": {}, "error": "out of luck", "kept_sha256": None}
            path.write_text(
                "".join(json.dumps(of | (blank if of["example_id"] == example else {})) + "\n" for of in found)
            )


@pytest.mark.parametrize("words", [(), ("shards=2", "shard=1")], ids=["alone", "a shard"])
def test_errors_are_tried_again_when_asked_for_and_a_result_takes_their_place(
    run: Callable[..., Finished], undisturbed: dict[str, dict[str, Any]], tmp_path: Path, words: tuple[str, ...]
) -> None:
    results = tmp_path / "results"
    assert run("shards=4", "shard=1").code == run("shards=4", "shard=3").code == run().code == 0
    spoil(results, "p64")
    same = run(*words)
    assert same.code == 1 and "new records: 0" in same.out
    again = run(*words, "retry_errors=true")
    assert again.code == 0, again.err
    assert "new records: 2, decoded as 2 rows" in again.out
    assert {name: of["scores"] for name, of in outcome(results).items()} == {
        name: of["scores"] for name, of in undisturbed.items()
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("shards=0",), "shards=0 is not a whole number of 1 or more"),
        (("shards=3", "shard=3"), "shard=3 is none of the 3 shards: use shard=0 to shard=2"),
        (("shards=x",), "shards=x is not a whole number"),
        (("retry_errors=3",), "retry_errors=3 is neither true nor false"),
    ],
)
def test_a_shard_that_cannot_be_is_one_line(run: Callable[..., Finished], words: tuple[str, ...], message: str) -> None:
    failed = run(*words)
    assert (failed.code, failed.err.count("\n")) == (2, 1)
    assert message in failed.err


def test_a_launcher_makes_one_job_of_each_shard_unless_the_words_name_one() -> None:
    assert [job.words for job in expand(["budget=32", "shards=2"], 1)] == [
        ("budget=32", "shards=2", f"shard={k}") for k in (0, 1)
    ]
    assert [job.name for job in expand([], 3)] == ["shard 0 of 3", "shard 1 of 3", "shard 2 of 3"]
    assert [job.name for job in expand(["budget=32"], 2, "budget=32")] == [
        "shard 0 of 2 (budget=32)",
        "shard 1 of 2 (budget=32)",
    ]
    assert [job.words for job in expand(["shards=2", "shard=1"], 1)] == [("shards=2", "shard=1")]
    with pytest.raises(ConfigError, match="shards=none is not a whole number"):
        expand(["shards=none"], 1)
