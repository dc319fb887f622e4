"""LongBench through the whole command: runs on all 21 + 13 datasets, the tables, scores again, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import cast

import pandas as pd
import pytest
from filelock import FileLock
from transformers import AutoTokenizer

from harness.cli.commands import score
from harness.config.build import build, task_config
from harness.store import cells as store_cells
from harness.store import files as store_files
from harness.store import manifest as store_manifest
from tasks.longbench.data import RECORDS, RECORDS_E, load
from tasks.longbench.metrics import BUCKETS
from tasks.longbench.suite import LongBench
from tests.conftest import Command

ROOT = Path(__file__).parents[3]
DATA = ROOT / "tests/fixtures/longbench"
REPORT = "report/tiny/longbench"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The embedded model with every fourth token an end token, so that answers are short and runs take seconds."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    shutil.copytree(ROOT / "models/tiny", folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(1, 1024, 4))}))
    return f"model.path={folder}"


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file but locks, and the log of when runs took place."""
    files = (
        path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith((".lock", "runs."))
    )
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def records(cell: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (cell / "records.0.jsonl").read_text().splitlines()]


# --- the fixtures


def test_fixtures_are_what_their_script_writes() -> None:
    spec = importlib.util.spec_from_file_location("make_longbench", ROOT / "tests/fixtures/make_longbench.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.files() == {path.name: path.read_text() for path in DATA.iterdir()}
    assert sorted(script.files()) == sorted(f"{name}.jsonl" for name in (*RECORDS, *RECORDS_E))


# --- runs


@pytest.mark.slow
def test_all_21_and_13_datasets_run_and_end_in_one_table(kvgauge: Command, model: str, tmp_path: Path) -> None:
    done = kvgauge(
        "task=longbench", "task.datasets=[all,e]", f"task.data={DATA}", "method=[fullkv,pyramidkv]", "budget=[32]",
        "limit=1", model,
        f"results_dir={tmp_path}",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "prompts: 34; prefills: 34; cells: 68; new records: 68" in done.out
    table = pd.read_csv(tmp_path / REPORT / "scores.csv")
    tasks = table[(table["kind"] == "task") & (table["method"] == "pyramidkv")]
    assert set(tasks["column"]) == {*RECORDS, *RECORDS_E}
    assert list(tasks["column"])[:4] == ["narrativeqa", "qasper", "multifieldqa_en", "hotpotqa"], (
        "the order of the published tables"
    )
    assert (tasks["n"] == 1).all() and (tasks["errors"] == 0).all()
    averages = set(table[table["kind"] == "average"]["column"])
    assert {"average of 16", "average of 6 categories", "average of 6 categories (E)", "code (E)"} <= averages
    for dataset in (*RECORDS, *RECORDS_E):
        (record,) = records(tmp_path / f"tiny/longbench-{dataset}/pyramidkv-32")
        assert record["example_id"] == load(DATA, dataset).rows[0]["_id"]
        assert record["tokens_before_truncation"] == record["prompt_tokens"]
        assert set(record["kept"]) != {record["prompt_tokens"]}  # type: ignore[call-overload]


def test_a_record_shows_both_ends_of_the_prompt_that_the_model_read(
    kvgauge: Command, model: str, tmp_path: Path
) -> None:
    (row,) = (json.loads(line) for line in (DATA / "qasper.jsonl").read_text().splitlines()[:1])
    (tmp_path / "qasper.jsonl").write_text(json.dumps(row | {"context": "The lamp is lit. " * 2000}))
    of_task = ("task=longbench", "task.datasets=[qasper]", f"task.data={tmp_path}", "task.max_prompt_tokens=1500")
    done = kvgauge(*of_task, "method=fullkv", model, f"results_dir={tmp_path / 'results'}")
    assert done.code == 0, done.err
    (record,) = records(tmp_path / "results/tiny/longbench-qasper/fullkv-full")
    first, last = record["prompt_ends"]  # type: ignore[misc]
    assert len(first) == len(last) == 300
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "models/tiny")
    begin = tokenizer.decode(tokenizer.encode("")) if tokenizer.encode("") else ""
    assert first.startswith(f"{begin}You are given a scientific article and a question.")
    assert last.endswith(f"Question: {row['input']}\n\nAnswer:")


def test_another_limit_of_new_tokens_is_a_departure_that_tables_note(
    kvgauge: Command, model: str, tmp_path: Path
) -> None:
    words = ("task=longbench", "task.datasets=[qasper,trec]", f"task.data={DATA}", "method=fullkv", "limit=1", model)
    done = kvgauge(*words, "task.max_new_tokens=3", f"results_dir={tmp_path}")
    assert done.code == 0, done.err
    assert done.out.replace("\n", " ").count("Not as published: task.max_new_tokens=3.") == 1
    assert "longbench on tiny: qasper, the first of 2 tasks; kvgauge report shows all" in done.out
    for dataset in ("qasper", "trec"):
        cell = tmp_path / f"tiny/longbench-{dataset}/fullkv-full"
        manifest = json.loads((cell / "manifest.json").read_text())
        assert manifest["settings"]["task"]["max_new_tokens"] == 3 and "Not as published" in manifest["note"]
        assert all(len(record["tokens"]) <= 3 for record in records(cell))  # type: ignore[arg-type]
    assert "Not as published: task.max" in (tmp_path / REPORT / "table.md").read_text().replace("\\", "")
    refused(kvgauge, [*words, f"results_dir={tmp_path}"], 5, "max_new_tokens=3, now it is 128")
    refused(kvgauge, [*words, "task.max_new_tokens=0", f"results_dir={tmp_path}"], 2, "task.max_new_tokens is 0")


def test_the_published_limit_is_no_departure() -> None:
    longbench = cast(LongBench, build(task_config("longbench", "task.datasets=[qasper,trec]")))
    assert [task.departures for task in longbench.tasks()] == ["", ""]
    qasper, trec = replace(longbench, max_new_tokens=128).tasks()
    assert (qasper.departures, qasper.max_new_tokens) == ("", 128)
    assert trec.departures == "Not as published: task.max_new_tokens=128."


def test_the_common_table_says_what_was_kept_of_what_and_what_is_the_same(
    kvgauge: Command, model: str, tmp_path: Path
) -> None:
    words = (
        "task=longbench",
        "task.datasets=[qasper,trec]",
        f"task.data={DATA}",
        "method=[fullkv,snapkv]",
        "budget=[32,100000]",
        model,
    )
    assert kvgauge(*words, f"results_dir={tmp_path}").code == 0
    table = pd.read_csv(tmp_path / REPORT / "scores.csv").set_index(["method", "budget", "column"]).sort_index()
    alone = [
        pd.read_csv(tmp_path / f"report/tiny/longbench-{name}/table.csv")
        .set_index(["method", "budget"])
        .loc["snapkv", "32"]
        for name in ("qasper", "trec")
    ]
    for name, one in zip(("qasper", "trec"), alone, strict=True):
        row = table.loc["snapkv", "32", name]
        assert all(
            row[column] == one[column] for column in ("kept_min", "kept_mean", "kept_max", "prompt_tokens_mean", "n")
        )
    assert (table["kept_min"] <= table["kept_mean"]).all() and (table["kept_mean"] <= table["kept_max"]).all()
    assert (
        set(table.loc["snapkv", "100000"]["alias_of"]) == {"fullkv-full"}
        and table.loc["snapkv", "32"]["alias_of"].isna().all()
    )
    shown = (tmp_path / REPORT / "table.md").read_text()
    assert "kept min/mean/max" in shown and "prompt tokens" in shown and "= fullkv-full" in shown
    tex = (tmp_path / REPORT / "table.tex").read_text()
    assert tex.splitlines()[0] == r"% needs \usepackage{booktabs} and \usepackage{graphicx}"
    assert tex.count(r"\noindent\resizebox") == 2, "tasks, averages"


SOME = "task.datasets=[qasper_e,trec,lcc,samsum_e]"
GRID = ("task=longbench", SOME, "method=[fullkv,snapkv]", "budget=[32]")


@pytest.fixture
def finished(kvgauge: Command, model: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """A finished run on four datasets, computed once and copied."""
    first = tmp_path_factory.getbasetemp() / "longbench-finished"
    if not first.exists():
        done = kvgauge(*GRID, f"task.data={DATA}", model, f"results_dir={first}")
        assert done.code == 0, done.err
    return Path(shutil.copytree(first, tmp_path / "results"))


@pytest.mark.slow
def test_a_zip_gives_the_scores_of_the_folder(kvgauge: Command, model: str, finished: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in DATA.iterdir():
            archive.write(path, f"data/{path.name}")
    done = kvgauge(*GRID, f"task.data={tmp_path / 'data.zip'}", model, f"results_dir={tmp_path / 'zip'}")
    assert done.code == 0, done.err
    other = snapshot(tmp_path / "zip")
    same = [name for name, data in snapshot(finished).items() if other[name] == data]
    assert set(other) - set(same) == {name for name in other if name.endswith(("manifest.json", "index.html"))}, (
        "they name command and data"
    )
    again = kvgauge(*GRID, f"task.data={tmp_path / 'data.zip'}", model, f"results_dir={finished}")
    assert "prefills: 0; cells: 8; new records: 0" in again.out, "the same data, wherever it lies"


def test_the_report_is_rebuilt_byte_for_byte(kvgauge: Command, finished: Path) -> None:
    before = snapshot(finished / "report")
    shutil.rmtree(finished / "report")
    done = kvgauge("report", str(finished))
    assert done.code == 0, done.err
    assert snapshot(finished / "report") == before


def test_scoring_again_changes_nothing_and_restores_what_was_edited(kvgauge: Command, finished: Path) -> None:
    before = snapshot(finished)
    done = kvgauge("score", str(finished))
    assert done.code == 0, done.err
    assert "scored 24 records again: 0 changed" in done.out
    assert snapshot(finished) == before
    cell = finished / "tiny/longbench-lcc/snapkv-32"
    right = (cell / "records.0.jsonl").read_text()
    scores = [record["scores"] for record in records(cell)]
    wrong = [
        json.dumps({**record, "scores": {"code_similarity_difflib": 0.99}}, ensure_ascii=False)
        for record in records(cell)
    ]
    (cell / "records.0.jsonl").write_text("\n".join(wrong) + "\n")
    (cell / "scores.json").unlink()
    assert "3 changed" in kvgauge("score", str(finished)).out
    assert [record["scores"] for record in records(cell)[3:]] == scores
    assert snapshot(finished) == before | {
        "tiny/longbench-lcc/snapkv-32/records.0.jsonl": ("\n".join(wrong) + "\n" + right).encode()
    }


@pytest.mark.slow
def test_scoring_in_another_way_gives_what_a_run_that_way_gives(
    kvgauge: Command, model: str, finished: Path, tmp_path: Path
) -> None:
    ways = ("task.code_similarity=levenshtein", "task.rouge_score=true", "task.official_zero=false")
    run = (*GRID, f"task.data={DATA}", model)
    assert kvgauge(*run, *ways, f"results_dir={tmp_path / 'other'}").code == 0
    done = kvgauge("score", str(finished), *(word for way in ways for word in ("--set", way)))
    assert done.code == 0, done.err
    assert "scored 24 records again: 12 changed" in done.out, "of lcc and samsum_e"
    ours, other = snapshot(finished), snapshot(tmp_path / "other")
    assert set(ours) == set(other)
    assert {name for name in ours if ours[name] != other[name]} == {
        name
        for name in ours
        if name.endswith(("manifest.json", "index.html")) or re.search(r"(lcc|samsum_e)/(?!prompts).*jsonl", name)
    }
    for name in (name for name in ours if name.endswith("manifest.json")):
        found, wanted = json.loads(ours[name]), json.loads(other[name])
        assert {**found, "provenance": {}} == {**wanted, "provenance": {}}
    again = kvgauge(*run, *ways, f"results_dir={finished}")
    assert "prefills: 0; cells: 8; new records: 0" in again.out, "such a run goes on from there"
    assert "0 changed" in kvgauge("score", str(finished), "--set", ways[0]).out
    assert kvgauge("score", str(finished), "--set", "task.code_similarity=difflib").code == 0
    assert "code_similarity_difflib" in (finished / "tiny/longbench-lcc/snapkv-32/manifest.json").read_text()


@pytest.mark.parametrize(
    ("part", "change", "code", "message"),
    [
        (
            "",
            "task.protocol=paper",
            2,
            "task.protocol of longbench-lcc does not change scores alone: run it again, set one of task.",
        ),
        ("", "task.code_similarity=indel", 2, "task.code_similarity='indel'"),
        ("", "task.official_zero=1", 2, "task.official_zero=1 is neither true nor false"),
        ("", "seed=3", 2, "--set seed=3 is no setting of the task"),
        ("", "task.code_similarity=[a", 2, "the list [a has no end"),
        (
            "tiny/longbench-lcc/snapkv-32",
            "task.code_similarity=levenshtein",
            2,
            "is one cell, and all cells of a task are",
        ),
    ],
)
def test_scoring_in_a_way_that_cannot_be_changes_nothing(
    kvgauge: Command, finished: Path, part: str, change: str, code: int, message: str
) -> None:
    before = snapshot(finished)
    refused(kvgauge, ["score", str(finished / part), "--set", change], code, message)
    assert snapshot(finished) == before


def test_a_cell_that_is_being_written_keeps_all_from_being_scored_in_another_way(
    kvgauge: Command, finished: Path
) -> None:
    before = snapshot(finished)
    with FileLock(finished / "tiny/longbench-trec/snapkv-32/.lock.0"):
        refused(
            kvgauge,
            ["score", str(finished), "--set", "task.code_similarity=levenshtein"],
            5,
            "is being written by another run",
        )
    assert snapshot(finished) == before


def test_a_needle_can_be_shown_by_another_metric(kvgauge: Command, tmp_path: Path) -> None:
    words = ("task=needle", "task.lengths=[300]", "task.depths=[50]", "method=fullkv", f"results_dir={tmp_path}")
    assert kvgauge(*words).code == 0
    done = kvgauge("score", str(tmp_path), "--set", "task.show=contains_answer")
    assert done.code == 0, done.err
    assert "0 changed" in done.out
    assert "contains answer" in (tmp_path / "report/tiny/needle/table.md").read_text()
    knobs = "set one of task.ignore_punctuation, task.show"
    refused(kvgauge, ["score", str(tmp_path), "--set", "task.seed=1"], 2, knobs)


@pytest.mark.slow
def test_fewer_examples_than_published_are_noted_in_one_line(kvgauge: Command, model: str, tmp_path: Path) -> None:
    for name in ("trec", "qasper", "lcc_e"):
        shutil.copy(DATA / f"{name}.jsonl", tmp_path)
    record = json.loads((DATA / "trec.jsonl").read_text().splitlines()[0])
    (tmp_path / "trec.jsonl").write_text("".join(json.dumps(record | {"_id": str(n)}) + "\n" for n in range(200)))
    words = ("task=longbench", f"task.data={tmp_path}", "method=fullkv", model, f"results_dir={tmp_path / 'results'}")
    note = "fewer examples than published: qasper 3 of 200, lcc_e 3 of 300."
    done = kvgauge(*words, "task.datasets=[qasper,trec,lcc_e]")
    assert done.code == 0, done.err
    assert done.out.count("fewer examples") == 1 and note in done.out
    assert note in kvgauge("report", str(tmp_path / "results")).out
    assert "fewer examples than published: longbench-qasper 3 of 200." in (
        tmp_path / "results/report/tiny/longbench-qasper/table.md"
    ).read_text().replace("\\", "")
    assert "fewer examples" not in (tmp_path / "results/report/tiny/longbench-trec/table.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("written", [1, 2])
def test_a_change_of_scoring_that_was_killed_is_refused_until_the_same_command_ends_it(
    kvgauge: Command, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """Killed after so many manifests: in the middle of the first task that changes, or between it and the second."""
    words = ("--set", "task.code_similarity=levenshtein", "--set", "task.rouge_score=true")
    unbroken = Path(shutil.copytree(finished, tmp_path / "unbroken"))
    assert kvgauge("score", str(unbroken), *words).code == 0
    write, left = store_files.write_atomically, [written]

    def killed(path: Path, text: str) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(store_cells, "write_atomically", killed)
        patch.setattr(store_manifest, "write_atomically", killed)
        assert kvgauge("score", str(finished), *words).code == 130
    report = kvgauge("report", str(finished))
    if written % 2:
        assert report.code == 5 and report.err.count("\n") == 1
        command = report.err.strip().rpartition("kvgauge score ")[2].split()
        assert command[1::2] == ["--set"] * len(command[1::2])
        assert kvgauge("score", *command).code == 0, "what the refusal names repairs this task"
    done = kvgauge("score", str(finished), *words)
    assert done.code == 0, done.err
    found, wanted = (
        {name: data for name, data in snapshot(f).items() if "report/" not in name} for f in (finished, unbroken)
    )
    assert found == wanted


@pytest.mark.slow
def test_a_run_refuses_records_that_are_not_scored_its_way(
    kvgauge: Command, model: str, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the manifests and before the records: what is on disk has scores of the other name."""
    words = ("--set", "task.code_similarity=levenshtein")
    with monkeypatch.context() as patch:
        patch.setattr(score, "read_results", lambda _: (_ for _ in ()).throw(KeyboardInterrupt()))
        assert kvgauge("score", str(finished), *words).code == 130
    run = [*GRID, f"task.data={DATA}", model, f"results_dir={finished}", "task.code_similarity=levenshtein"]
    refused(kvgauge, run, 5, f"score them with kvgauge score {finished / 'tiny/longbench-lcc'}")
    assert kvgauge("score", str(finished)).code == 0
    assert "new records: 0" in kvgauge(*run).out


def test_longbench_e_is_shown_by_length_as_published(kvgauge: Command, finished: Path) -> None:
    for dataset, count in (("qasper_e", (1, 1, 1)), ("samsum_e", (1, 1, 1))):
        report = finished / f"report/tiny/longbench-{dataset}"
        table = pd.read_csv(report / "breakdown.csv")
        assert list(table["bucket"]) == [*BUCKETS] * 2
        for label in ("fullkv", "snapkv"):
            part = table[table["method"] == label]
            cell = finished / f"tiny/longbench-{dataset}" / {"fullkv": "fullkv-full", "snapkv": "snapkv-32"}[label]
            rows = records(cell)
            assert [row["group"]["length"] for row in rows] == [3999, 4000, 8000]  # type: ignore[index]
            assert list(part["score"]) == [100 * next(iter(row["scores"].values())) for row in rows]  # type: ignore[attr-defined]
            assert tuple(part["n"]) == count
        assert "| bucket 0-4k | bucket 4-8k | bucket 8k+ |" in " ".join(
            (report / "table.md").read_text().replace(":", "").split()
        )
        assert "bucket 0-4k & bucket 4-8k & bucket 8k+" in (report / "table.tex").read_text()
    assert not (finished / "report/tiny/longbench-lcc/breakdown.csv").exists()
    together = [
        row.split("|")
        for row in (finished / REPORT / "table.md").read_text().partition("## By bucket")[2].splitlines()
        if "|" in row
    ]
    table = pd.read_csv(finished / "report/tiny/longbench-qasper_e/breakdown.csv")
    assert [name.strip() for name in together[0][1:-1]] == [
        "method",
        "budget",
        "bucket",
        "qasper\\_e",
        "samsum\\_e",
        "mean",
    ]
    assert [float(row[4]) for row in together[2:8]] == pytest.approx(list(table["score"]), abs=0.005)
    assert [row[3].strip() for row in together[2:5]] == [*BUCKETS]
    assert "bucket" in kvgauge("report", str(finished)).out


def test_an_empty_bucket_is_a_dash_not_a_number(kvgauge: Command, model: str, tmp_path: Path) -> None:
    words = (
        "task=longbench",
        "task.datasets=[trec_e]",
        f"task.data={DATA}",
        "method=fullkv",
        model,
        f"results_dir={tmp_path}",
    )
    assert kvgauge(*words, "limit=2").code == 0
    table = pd.read_csv(tmp_path / "report/tiny/longbench-trec_e/breakdown.csv")
    assert list(table["bucket"]) == ["0-4k", "4-8k"]
    assert all(math.isfinite(value) for value in table["score"])


# --- what is refused


def line(**changes: object) -> str:
    """A line of qasper; ``...`` as a change leaves the field out."""
    values = json.loads((DATA / "qasper.jsonl").read_text().splitlines()[0]) | changes
    return json.dumps({name: value for name, value in values.items() if value is not ...})


GOOD = line()
BAD_DATA: list[tuple[str, str | bytes | None, str]] = [
    ("no file", None, "holds no qasper.jsonl"),
    ("empty file", "", "qasper.jsonl holds no record"),
    ("cut line", GOOD[:-30], "line 1 of qasper.jsonl is not JSON"),
    ("cut second line", f"{GOOD}\n{GOOD[:100]}", "line 2 of qasper.jsonl is not JSON"),
    ("not utf-8", b"\xff\xfe" + GOOD.encode(), "line 1 of qasper.jsonl is not UTF-8"),
    ("not a record", "[1, 2]", "line 1 of qasper.jsonl is [1, 2], not a record"),
    ("no answers", line(answers=...), "line 1 of qasper.jsonl has no field 'answers'"),
    ("answers a text", line(answers="yes"), "answers='yes', which is not a list of texts"),
    ("length a text", line(length="9"), "length='9', which is not a whole number"),
    ("context null", line(context=None), "context=None, which is not a text"),
    ("another dataset", line(dataset="trec"), "is of dataset 'trec'"),
    ("the same id twice", f"{GOOD}\n{GOOD}", "line 2 of qasper.jsonl repeats the _id of line 1"),
]  # fmt: skip
BAD_SETTINGS = [
    (["task.data=/nowhere"], 3, "task.data='/nowhere' does not exist"),
    (["task.data=null"], 3, "cannot be downloaded"),
    (["task.datasets=[squad]"], 2, "task.datasets has 'squad', which is no dataset of LongBench"),
    (["task.datasets=[]"], 2, "task.datasets is empty"),
    (["task.protocol=official"], 2, "task.protocol='official' is not a protocol"),
    (["task.max_prompt_tokens=1"], 2, "task.max_prompt_tokens is 1"),
    (["task.max_prompt_tokens={papr: 7950}"], 2, "task.max_prompt_tokens has 'papr', which is no protocol"),
    (["task.protocol=longbench", "task.max_prompt_tokens=null"], 2, "another limit for each model"),
    (["task.chat=true"], 2, "the tokenizer has no chat template: use task.chat=false"),
    (["task.chat=maybe"], 2, "task.chat='maybe' is neither true nor false"),
    (["task.code_similarity=indel"], 2, "task.code_similarity='indel'"),
    (["task.official_zero=1"], 2, "task.official_zero=1 is neither true nor false"),
    (["task.name=a/b"], 2, "cannot name a folder"),
    (["task.tempalte=x"], 2, "task.tempalte is not a setting"),
]  # fmt: skip


def refused(kvgauge: Command, words: list[str], code: int, message: str) -> None:
    failed = kvgauge(*words)
    assert failed.code == code, failed.err
    assert message in failed.err
    assert failed.err.startswith("kvgauge: ")
    assert failed.err.count("\n") == 1, failed.err
    assert ": " in failed.err.removeprefix("kvgauge: "), "no remedy"


def run_words(results: Path, data: Path, *changes: str) -> list[str]:
    words = [
        "task=longbench",
        "task.datasets=[qasper]",
        f"task.data={data}",
        "method=snapkv",
        "budget=32",
        f"results_dir={results}",
    ]
    named = {word.split("=")[0] for word in changes}
    return [word for word in words if word.split("=")[0] not in named] + list(changes)


@pytest.mark.parametrize(
    ("text", "message"), [(text, message) for _, text, message in BAD_DATA], ids=[name for name, *_ in BAD_DATA]
)
def test_bad_data_is_one_line_for_a_run_and_for_the_check(
    kvgauge: Command, tmp_path: Path, text: str | bytes | None, message: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    if text is not None:
        (data / "qasper.jsonl").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(kvgauge, run_words(tmp_path / "results", data), 3, message)
    assert not (tmp_path / "results").exists()
    checked = kvgauge("data", "check", str(data))
    assert checked.code == 3
    assert checked.err.count("\n") == 1
    if text is not None:
        assert message in checked.out


@pytest.mark.parametrize("kind", ["cut", "no zip", "without the file", "damaged member", "outside"])
def test_a_bad_zip_is_one_line(kvgauge: Command, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            {"without the file": "data/trec.jsonl", "outside": "../qasper.jsonl"}.get(kind, "data/qasper.jsonl"), GOOD
        )
    raw = path.read_bytes()
    path.write_bytes(
        {"cut": raw[:-40], "no zip": b"x" * 100, "damaged member": raw.replace(b"Marta", b"Marty", 1)}.get(kind, raw)
    )
    message = {
        "cut": "is no zip, or was cut",
        "no zip": "is no zip, or was cut",
        "without the file": "holds no qasper.jsonl",
        "damaged member": "qasper.jsonl in",
        "outside": "points outside of it",
    }[kind]
    refused(kvgauge, run_words(tmp_path / "results", path), 3, message)


@pytest.mark.parametrize(
    ("words", "code", "message"), BAD_SETTINGS, ids=[" ".join(words) for words, *_ in BAD_SETTINGS]
)
def test_a_bad_setting_is_one_line(
    kvgauge: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], code: int, message: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused(kvgauge, run_words(tmp_path / "results", DATA, *words), code, message)
    assert not (tmp_path / "results").exists()


def test_changed_data_under_old_records_is_refused(
    kvgauge: Command, model: str, finished: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(DATA, tmp_path / "data"))
    text = (data / "trec.jsonl").read_text()
    (data / "trec.jsonl").write_text(text.replace("lighthouse", "lightship"))
    before = snapshot(finished)
    refused(
        kvgauge, [*GRID, f"task.data={data}", model, f"results_dir={finished}"], 5, "was made with task.data_sha256="
    )
    assert snapshot(finished) == before


def test_another_protocol_under_old_records_is_refused(kvgauge: Command, model: str, finished: Path) -> None:
    words = [*GRID, f"task.data={DATA}", model, f"results_dir={finished}", "task.protocol=paper"]
    refused(kvgauge, words, 5, "was made with task.all_end_tokens=True, now it is False")
