"""Predictions of LongBench's own code, of KVCache-Factory and of kvpress: the cells they become, their scores, and
what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.kvpress import texts
from tasks.longbench.data import RECORDS_E
from tests.conftest import Command

ROOT = Path(__file__).parents[3]
FORMATS = ("longbench", "kvcache_factory", "kvpress")
BACKENDS = ("difflib", "levenshtein")


def golden(backend: str) -> list[dict[str, Any]]:
    """What the official scorer gave for sets of eight predictions, one set per dataset."""
    found = json.loads((ROOT / f"tests/golden/metrics/metrics_{backend}.json").read_text())["dataset_scorers"]
    return [case for case in found if "lengths" in case]


def lines(case: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "prompt": "Story: …",
            "input": f"Question {n}?",
            "context": "…",
            "answers": answers,
            "pred": prediction,
            "length": length,
            "dataset": case["dataset"],
            "language": "en",
            "all_classes": case["all_classes"],
            "_id": f"{n:048x}",
        }
        for n, (prediction, answers, length) in enumerate(
            zip(case["predictions"], case["answers"], case["lengths"], strict=True)
        )
    ]


def as_jsonl(rows: list[dict[str, Any]], *fields: str) -> str:
    """As ``pred.py`` and ``run_longbench.py`` write it."""
    return "".join(
        json.dumps({name: row[name] for name in fields or row}, ensure_ascii=bool(fields)) + "\n" for row in rows
    )


def as_csv(rows: list[dict[str, Any]], task: str, ratio: float, drop: tuple[str, ...] = ("_id",)) -> str:
    """As ``evaluate.py`` writes it: lists as numpy arrays, columns in any order, no context."""
    frame = (
        pd.DataFrame(rows)
        .rename(columns={"input": "question", "pred": "predicted_answer"})
        .drop(columns=["prompt", "context", *drop])
    )
    frame["task"], frame["answer_prefix"], frame["max_new_tokens"], frame["compression_ratio"] = (
        task,
        "Answer:",
        84,
        ratio,
    )
    for name in ("answers", "all_classes"):
        frame[name] = [None if value is None else np.array(value, dtype=object) for value in frame[name]]
    return str(frame[sorted(frame.columns, key=lambda name: name[::-1])].to_csv(index=False))


def write(folder: Path, format: str, case: dict[str, Any], extended: bool = False) -> Path:
    """A file of predictions where its program puts it."""
    rows, dataset = lines(case), case["dataset"]
    if format == "longbench":
        path = folder / ("pred_e" if extended else "pred") / "llama" / f"{dataset}.jsonl"
        text = as_jsonl(rows, "pred", "answers", "all_classes", "length")
    elif format == "kvcache_factory":
        path, text = folder / "llama_128" / dataset / "SnapKV.json", as_jsonl(rows)
    else:
        data, name = ("longbench-e", f"{dataset}_e") if extended else ("longbench", dataset)
        path = folder / f"{data}__{name}__meta--llama__snapkv__0.88" / "predictions.csv"
        text = as_csv(rows, f"{dataset}-e" if extended else dataset, 0.875)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, newline="")
    return path


def given_names(format: str) -> list[str]:
    return ["--label", "snapkv", "--budget", "128"] if format == "longbench" else []


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- scores


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("format", FORMATS)
def test_scores_are_the_official_ones(kvgauge: Command, tmp_path: Path, format: str, backend: str) -> None:
    # The backend is of the code datasets alone.
    cases = [case for case in golden(backend) if backend == "difflib" or case["dataset"] == "lcc"]
    for case in cases:
        write(tmp_path / "files", format, case)
    done = kvgauge(
        "import", str(tmp_path / "files"), "--format", format, "--to", str(tmp_path / "to"), *given_names(format),
        "--set", f"task.code_similarity={backend}",
    )  # fmt: skip
    assert done.code == 0, done.err
    count = 8 * len(cases)
    assert f"imported {count} predictions from {len(cases)} files: {count} new" in done.out
    model = "meta--llama" if format == "kvpress" else "llama"
    cell = "snapkv-12.5%" if format == "kvpress" else "snapkv-128"
    for case in cases:
        scores = json.loads(
            (tmp_path / "to" / model / f"longbench-{case['dataset']}" / cell / "scores.json").read_text()
        )
        assert round(scores["score"], 2) == case["scorer"], case["dataset"]
        assert (scores["n"], scores["errors"], scores["retention"], scores["kept_mean"]) == (8, 0, None, None)
        assert f"| {case['scorer']:.2f} |" in " ".join(
            (tmp_path / "to/report" / model / f"longbench-{case['dataset']}/table.md").read_text().split()
        )


def test_an_import_beside_others_and_scores_of_a_part_keep_everything_in_the_report(
    kvgauge: Command, tmp_path: Path
) -> None:
    to, words = tmp_path / "to", ("--format", "longbench", "--label", "snapkv", "--budget", "128")
    for model, case in zip(("a", "a", "b"), golden("difflib"), strict=False):
        path = write(tmp_path / model / case["dataset"], "longbench", case)
        assert kvgauge("import", str(path), *words, "--model", model, "--to", str(to)).code == 0
    tasks = [f"{folder.parent.name}/{folder.name}" for folder in sorted(to.glob("[ab]/*"))]
    assert len(tasks) == 3
    before = snapshot(to / "report")
    page = (to / "report/index.html").read_text()
    assert all(f'id="{view}"' in page for view in (*tasks, "a/longbench", "b/longbench"))
    done = kvgauge("score", str(to / tasks[0]))
    assert done.code == 0, done.err
    assert snapshot(to / "report") == before and [*to.rglob("report")] == [to / "report"]


@pytest.mark.parametrize("format", ["longbench", "kvpress"])
def test_longbench_e_has_the_official_scores_by_length(kvgauge: Command, tmp_path: Path, format: str) -> None:
    cases = [case for case in golden("difflib") if f"{case['dataset']}_e" in RECORDS_E]
    assert len(cases) >= 6
    for case in cases:
        write(tmp_path / "files", format, case, extended=True)
    done = kvgauge(
        "import",
        str(tmp_path / "files"),
        "--format",
        format,
        "--to",
        str(tmp_path / "to"),
        "--model",
        "m",
        *given_names(format),
    )
    assert done.code == 0, done.err
    for case in cases:
        table = pd.read_csv(tmp_path / f"to/report/m/longbench-{case['dataset']}_e/breakdown.csv")
        assert {b: round(s, 2) for b, s in zip(table["bucket"], table["score"], strict=True)} == case["scorer_e"], case[
            "dataset"
        ]


# --- cells


def test_imported_cells_stand_in_the_same_tables_with_paired_differences(kvgauge: Command, tmp_path: Path) -> None:
    case = golden("difflib")[0]
    for label, predictions in (
        ("FullKV", [answers[0] for answers in case["answers"]]),
        ("PyramidKV", case["predictions"]),
    ):
        path = write(tmp_path / "files", "kvcache_factory", case | {"predictions": predictions})
        path.rename(path.with_name(f"{label}.json"))
    shutil.copytree(tmp_path / "files/llama_128", tmp_path / "files/llama_64")
    (tmp_path / "files/llama_64/narrativeqa/FullKV.json").unlink()
    (tmp_path / "files/llama_128/narrativeqa/metrics.json").write_text("{}")
    (tmp_path / "files/llama_128/run_meta.json").write_text("{}")
    done = kvgauge("import", str(tmp_path / "files"), "--format", "kvcache_factory", "--to", str(tmp_path / "to"))
    assert done.code == 0, done.err
    table = pd.read_csv(tmp_path / "to/report/llama/longbench/scores.csv")
    table = table[table["column"] == "narrativeqa"]
    assert list(zip(table["method"], table["budget"], strict=True)) == [
        ("fullkv", "full"),
        ("pyramidkv", "64"),
        ("pyramidkv", "128"),
    ]
    assert table["difference"].iloc[1] == pytest.approx(case["scorer"] - table["score"].iloc[0], abs=0.005)
    assert table["difference_low"].notna().all()
    assert list(table["retention"].fillna(-1)) == [1, -1, -1]
    assert "Imported from kvcache\\_factory" in (tmp_path / "to/report/llama/longbench/table.md").read_text()
    manifest = json.loads((tmp_path / "to/llama/longbench-narrativeqa/pyramidkv-64/manifest.json").read_text())
    assert manifest["settings"]["imported"]["format"] == "kvcache_factory"
    assert len(manifest["settings"]["imported"]["file_sha256"]) == 64
    assert manifest["provenance"]["file"].endswith("llama_64/narrativeqa/PyramidKV.json")


@pytest.mark.parametrize("format", FORMATS)
def test_scoring_and_reporting_work_from_imported_records(kvgauge: Command, tmp_path: Path, format: str) -> None:
    for case in golden("difflib")[4:5]:
        write(tmp_path / "files", format, case)
    words = (
        "import",
        str(tmp_path / "files"),
        "--format",
        format,
        "--to",
        str(tmp_path / "to"),
        "--model",
        "m",
        *given_names(format),
    )
    assert kvgauge(*words).code == 0
    before = snapshot(tmp_path / "to")
    assert "scored 8 records again: 0 changed" in kvgauge("score", str(tmp_path / "to")).out.replace("\n", " ")
    assert "imported 8 predictions from 1 files: 0 new" in kvgauge(*words).out
    assert snapshot(tmp_path / "to") == before
    shutil.rmtree(tmp_path / "to/report")
    assert kvgauge("report", str(tmp_path / "to")).code == 0
    assert snapshot(tmp_path / "to") == before


def test_files_without_ids_pair_by_what_they_say_whatever_their_order(kvgauge: Command, tmp_path: Path) -> None:
    case = golden("difflib")[0]
    back = case | {name: case[name][::-1] for name in ("predictions", "answers", "lengths")}
    for label, one in (("fullkv", case), ("snapkv", back)):
        path = write(tmp_path / label, "longbench", one)
        budget = "full" if label == "fullkv" else "64"
        done = kvgauge(
            "import",
            str(path),
            "--format",
            "longbench",
            "--label",
            label,
            "--budget",
            budget,
            "--to",
            str(tmp_path / "to"),
        )
        assert done.code == 0, done.err
    table = pd.read_csv(tmp_path / "to/report/llama/longbench/scores.csv")
    assert list(table["n"]) == list(table["expected"]) == [8] * len(table)
    assert (table[["difference", "difference_low", "difference_high"]].abs() < 1e-9).all().all()


def test_what_a_dataset_lacks_of_the_cells_is_a_dash_in_the_common_table(kvgauge: Command, tmp_path: Path) -> None:
    for place, case in enumerate(golden("difflib")[:2]):
        words = ("--format", "longbench", "--label", f"method{place}", "--budget", "64", "--to", str(tmp_path / "to"))
        done = kvgauge("import", str(write(tmp_path, "longbench", case)), *words)
        assert done.code == 0, done.err
        assert "imported 8 predictions from 1 files: 8 new" in done.out
    shown = kvgauge("report", str(tmp_path / "to"), "--wide").out
    rows = [line.split() for line in shown.splitlines() if line.startswith(("method0", "method1"))]
    scores = [row[2:4] for row in rows[:2]]
    assert [cell == "–" for row in scores for cell in row] in ([False, True, True, False], [True, False, False, True])


@pytest.mark.parametrize(
    ("format", "place", "cell"),
    [
        (
            "kvcache_factory",
            "mistral-7b-instruct-v0.2_2048/qasper/H2O.json",
            "mistral-7b-instruct-v0.2/longbench-qasper/h2o-2048",
        ),
        ("kvcache_factory", "llama_64/qasper/pyramidkv.json", "llama/longbench-qasper/pyramidkv-64"),
        ("kvcache_factory", "llama_64/qasper/FullKV.json", "llama/longbench-qasper/fullkv-full"),
        ("kvpress", "longbench__qasper__a--b__no_press__0.00/predictions.csv", "a--b/longbench-qasper/no_press-full"),
        ("kvpress", "longbench__qasper__a--b__snapkv__0.50/1/predictions.csv", "a--b/longbench-qasper/snapkv-50%"),
        (
            "kvpress",
            "longbench__qasper__a--b__snap_think__0.50__fraction0.100__compressed_questions/predictions.csv",
            "a--b/longbench-qasper/snap_think-fraction0.100-compressed_questions-50%",
        ),
        ("kvpress", "longbench-e__qasper_e__a--b__knorm__0.50/predictions.csv", "a--b/longbench-qasper_e/knorm-50%"),
    ],
)
def test_the_path_names_the_cell(kvgauge: Command, tmp_path: Path, format: str, place: str, cell: str) -> None:
    case = golden("difflib")[0] | {"dataset": "qasper"}
    path = tmp_path / "files" / place
    path.parent.mkdir(parents=True)
    ratio = 0.0 if "no_press" in place else 0.5
    path.write_text(as_csv(lines(case), "qasper", ratio) if format == "kvpress" else as_jsonl(lines(case)), newline="")
    for whole in (tmp_path / "files", path):
        done = kvgauge("import", str(whole), "--format", format, "--to", str(tmp_path / whole.name))
        assert done.code == 0, done.err
        assert (tmp_path / whole.name / cell / "scores.json").exists()


def test_the_command_line_overrules_the_path(kvgauge: Command, tmp_path: Path) -> None:
    path = write(tmp_path, "kvcache_factory", golden("difflib")[0])
    names = ("--model", "other", "--label", "mine", "--budget", "12.0%")
    assert kvgauge("import", str(path), "--format", "kvcache_factory", "--to", str(tmp_path / "to"), *names).code == 0
    assert (tmp_path / "to/other/longbench-narrativeqa/mine-12%/scores.json").exists()


# --- doubled predictions


def whole_file(tmp_path: Path, format: str, dataset: str, count: int) -> tuple[Path, dict[str, Any]]:
    """A file of ``count`` right predictions, each of a record of its own, where its program puts it."""
    case = golden("difflib")[0] | {"dataset": dataset, "all_classes": None}
    case |= {"answers": [[f"answer {n}"] for n in range(count)], "lengths": list(range(1000, 1000 + count))}
    return write(tmp_path, format, case | {"predictions": [f"answer {n}" for n in range(count)]}), case


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_with_a_rerun_appended_is_refused_with_the_lines_and_the_remedy(
    kvgauge: Command, tmp_path: Path, format: str
) -> None:
    path, _ = whole_file(tmp_path, format, "qasper", 200)
    text = path.read_text()
    path.write_text(text + "".join(text.splitlines(keepends=True)[format == "kvpress" :][:120]), newline="")
    words = [str(path), "--format", format, *given_names(format)]
    first = 2 if format == "kvpress" else 1
    refused(
        kvgauge, tmp_path, words, 3, f"lines {first} and {first + 200} of {path}", "and 119 more are doubled",
        "in 320 lines for a dataset of 200", "--doubled last (or first, or all)",
    )  # fmt: skip


@pytest.mark.parametrize(("take", "score", "n"), [("first", 100.0, 200), ("last", 40.0, 200), ("all", 62.5, 320)])
def test_which_of_doubled_predictions_count_can_be_said(
    kvgauge: Command, tmp_path: Path, take: str, score: float, n: int
) -> None:
    path, _ = whole_file(tmp_path, "longbench", "qasper", 200)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(as_jsonl([*rows, *(row | {"pred": "nothing"} for row in rows[:120])]))
    to = tmp_path / "to"
    words = ("import", str(path), "--format", "longbench", "--to", str(to), *given_names("longbench"))
    done = kvgauge(*words, "--doubled", take)
    assert done.code == 0, done.err
    cell = to / "llama/longbench-qasper/snapkv-128"
    scores = json.loads((cell / "scores.json").read_text())
    assert (scores["score"], scores["n"]) == (pytest.approx(score), n)
    manifest = json.loads((cell / "manifest.json").read_text())
    assert manifest["settings"]["imported"]["doubled"] == take
    assert f"Of several predictions for one record: {take}." in done.out.replace("\n", " ")
    assert ("more examples than published" in done.out.replace("\n", " ")) == (take == "all")


def test_more_predictions_than_the_dataset_has_records_are_refused(kvgauge: Command, tmp_path: Path) -> None:
    path, _ = whole_file(tmp_path, "longbench", "multifieldqa_en", 151)
    words = [str(path), "--format", "longbench", *given_names("longbench")]
    refused(kvgauge, tmp_path, words, 3, f"{path} holds 151 predictions", "the 150 records of multifieldqa_en")


def test_a_record_that_the_dataset_itself_holds_twice_is_no_error_in_a_complete_file(
    kvgauge: Command, tmp_path: Path
) -> None:
    path, _ = whole_file(tmp_path, "longbench", "multifieldqa_zh", 200)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    words = ("import", str(path), "--format", "longbench", "--to", str(tmp_path / "to"), *given_names("longbench"))
    path.write_text(as_jsonl([*rows[:199], rows[57]]))
    done = kvgauge(*words)
    assert done.code == 0, done.err
    assert "imported 200 predictions from 1 files: 200 new" in done.out
    path.write_text(as_jsonl([*rows[:198], rows[57]]))
    assert "lines 58 and 199 of" in kvgauge(*words).err
    path.write_text(as_jsonl([*rows[:100], *rows[:100]]))
    assert "and 99 more are doubled" in kvgauge(*words).err


# --- kvpress's lists


def test_a_printed_array_is_read_text_by_text() -> None:
    assert texts("['one' 'two']") == ["one", "two"]
    assert texts("['one'\n \"the other's\"]") == ["one", "the other's"]
    assert texts(r"['a \'quoted\' \"word\"\n' '\\']") == ["a 'quoted' \"word\"\n", "\\"]
    assert texts("['one', 'two']") == ["one", "two"]
    assert texts("[]") == []
    for wrong in ("", "one", "['one' two]", "['one", "['one' ... 'two']", "[1 2]", r"['\x']"):
        with pytest.raises(ValueError):
            texts(wrong)


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), max_size=20))
def test_every_array_of_texts_is_read_as_numpy_prints_it(values: list[str]) -> None:
    assert texts(str(np.array(values, dtype=object))) == values


# --- what is refused


def bad_line(**changes: Any) -> str:
    """A second line of a file of qasper; ``...`` as a change leaves the field out."""
    case = golden("difflib")[0] | {"dataset": "qasper"}
    first, second = lines(case)[:2]
    return as_jsonl([first, {name: value for name, value in (second | changes).items() if value is not ...}])


JSON_LINES = [
    ("cut", lambda: bad_line()[:-20], "line 2 of", "is not JSON"),
    ("not a record", lambda: bad_line() + "[1]\n", "line 3 of", "is [1], not a prediction"),
    ("no pred", lambda: bad_line(pred=...), "line 2 of", "has no field 'pred'"),
    ("pred null", lambda: bad_line(pred=None), "line 2 of", "has pred=None, which is not a text"),
    ("no answers", lambda: bad_line(answers=...), "line 2 of", "has no field 'answers'"),
    ("answers a text", lambda: bad_line(answers="yes"), "line 2 of", "has answers='yes', which is not a list of texts"),
    ("length a text", lambda: bad_line(length="9"), "line 2 of", "has length='9', which is not a whole number"),
    ("another dataset", lambda: bad_line(dataset="trec"), "line 2 of", "is of dataset 'trec', not qasper"),
    ("the same id", lambda: bad_line(_id=f"{0:048x}"), "lines 1 and 2 of", "have the same _id"),
    ("empty", lambda: "\n", "SnapKV.json", "holds no prediction"),
]
TABLES = [
    ("cut row", lambda text: text[: text.index("\n", 400) - 20].rstrip(), "line ", "as in a cut file"),
    ("open quote", lambda text: text + '"x', "line ", "is not CSV"),
    (
        "no column",
        lambda text: text.replace("predicted_answer", "answer", 1),
        "line 1 of",
        "names no column 'predicted_answer'",
    ),
    (
        "a column twice",
        lambda text: text.replace("length", "answers", 1),
        "line 1 of",
        "names the column 'answers' twice",
    ),
    (
        "answers not printed",
        lambda text: text.replace("['", "['x", 1).replace("['x", "(", 1),
        "line 2 of",
        "which is not a list of texts",
    ),
    ("header alone", lambda text: text.partition("\n")[0] + "\n", "predictions.csv", "holds no prediction"),
    ("nothing", lambda text: "", "line 1 of", "names no column"),
]


def refused(kvgauge: Command, tmp_path: Path, words: list[str], code: int, *messages: str) -> None:
    failed = kvgauge("import", *words, "--to", str(tmp_path / "to"))
    assert failed.code == code, failed.err
    assert failed.err.startswith("kvgauge: ") and failed.err.count("\n") == 1, failed.err
    for message in messages:
        assert message in failed.err
    assert ": " in failed.err.removeprefix("kvgauge: "), "no remedy"
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("text", "where", "what"), [case[1:] for case in JSON_LINES], ids=[name for name, *_ in JSON_LINES]
)
def test_a_malformed_file_of_lines_is_one_line(
    kvgauge: Command, tmp_path: Path, text: Callable[[], str], where: str, what: str
) -> None:
    path = tmp_path / "llama_64/qasper/SnapKV.json"
    path.parent.mkdir(parents=True)
    path.write_text(text())
    refused(kvgauge, tmp_path, [str(path), "--format", "kvcache_factory"], 3, where, "SnapKV.json", what)


@pytest.mark.parametrize(("change", "where", "what"), [case[1:] for case in TABLES], ids=[name for name, *_ in TABLES])
def test_a_malformed_table_is_one_line(
    kvgauge: Command, tmp_path: Path, change: Callable[[str], str], where: str, what: str
) -> None:
    path = tmp_path / "longbench__narrativeqa__a--b__snapkv__0.50/predictions.csv"
    path.parent.mkdir(parents=True)
    path.write_text(change(as_csv(lines(golden("difflib")[0]), "narrativeqa", 0.5)), newline="")
    refused(kvgauge, tmp_path, [str(path), "--format", "kvpress"], 3, where, "predictions.csv", what)


@pytest.mark.parametrize(
    ("format", "place", "text", "benchmark"),
    [
        ("kvpress", "infinitebench__passkey__a--b__knorm__0.50/predictions.csv", "answer,task\n", "infinitebench"),
        ("kvcache_factory", "llama_128/4096/qa_1/SnapKV.json", '{"pred": "x", "answers": ["x"]}\n', "RULER (qa_1)"),
    ],
)
def test_files_of_other_benchmarks_are_said_to_be_theirs(
    kvgauge: Command, tmp_path: Path, format: str, place: str, text: str, benchmark: str
) -> None:
    path = tmp_path / "files" / place
    path.parent.mkdir(parents=True)
    path.write_text(text)
    for given_path in (tmp_path / "files", path):
        refused(
            kvgauge, tmp_path, [str(given_path), "--format", format], 3, str(path),
            f"is of {benchmark}, which kvgauge cannot score", "so give the folder of those",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("place", "text", "benchmark", "task"),
    [
        ("ruler__4096__a--b__snapkv__0.50/predictions.csv", "answer,task\nx,niah_single_1\n", "ruler", "ruler"),
        ("ruler__4096__a--b__snapkv__0.50/1/predictions.csv", "answer,task\nx,niah_single_1\n", "ruler", "ruler"),
        ("mine/predictions.csv", "question,answer,task,predicted_answer\nq,x,vt,x\n", "RULER (vt)", "ruler"),
        ("longbench-v2__0shot__a--b__knorm__0.50/predictions.csv", "answer,task\n", "longbench-v2", "longbench_v2"),
    ],
)
def test_kvpress_files_of_other_benchmarks_are_said_to_be_read_as_those_tasks(
    kvgauge: Command, tmp_path: Path, place: str, text: str, benchmark: str, task: str
) -> None:
    path = tmp_path / "files" / place
    path.parent.mkdir(parents=True)
    path.write_text(text)
    refused(
        kvgauge, tmp_path, [str(path), "--format", "kvpress"], 3, str(path),
        f"is of {benchmark}, not of LongBench: import it with --task {task}",
    )  # fmt: skip


def test_a_folder_of_ones_own_name_is_read_by_what_its_table_says(kvgauge: Command, tmp_path: Path) -> None:
    path = tmp_path / "mine__again/predictions.csv"
    path.parent.mkdir()
    path.write_text(as_csv(lines(golden("difflib")[0] | {"dataset": "qasper"}), "qasper", 0.5), newline="")
    names = ("--model", "m", "--label", "snapkv")
    done = kvgauge("import", str(path), "--format", "kvpress", "--to", str(tmp_path / "to"), *names)
    assert done.code == 0, done.err
    assert (tmp_path / "to/m/longbench-qasper/snapkv-50%/scores.json").exists()


def test_what_only_a_dataset_needs_is_asked_of_it_alone(kvgauge: Command, tmp_path: Path) -> None:
    (trec,) = [case for case in golden("difflib") if case["dataset"] == "trec"]
    path = write(tmp_path, "longbench", trec | {"all_classes": None})
    refused(
        kvgauge,
        tmp_path,
        [str(path), "--format", "longbench", *given_names("longbench")],
        3,
        "line 1 of",
        "has all_classes=None",
    )
    (samsum,) = [case for case in golden("difflib") if case["dataset"] == "samsum"]
    path = write(tmp_path, "longbench", samsum | {"lengths": [None] * 8}, extended=True)
    refused(
        kvgauge,
        tmp_path,
        [str(path), "--format", "longbench", *given_names("longbench")],
        3,
        "line 1 of",
        "has length=None",
    )
    path = write(tmp_path, "longbench", samsum | {"lengths": [None] * 8})
    done = kvgauge(
        "import", str(path), "--format", "longbench", "--to", str(tmp_path / "to"), *given_names("longbench")
    )
    assert done.code == 0, done.err


def test_an_answer_that_names_no_paragraph_is_refused_with_its_line(kvgauge: Command, tmp_path: Path) -> None:
    (case,) = [case for case in golden("difflib") if case["dataset"] == "passage_retrieval_en"]
    path = write(tmp_path, "longbench", case | {"answers": [*case["answers"][:7], ["nowhere"]]})
    refused(
        kvgauge, tmp_path, [str(path), "--format", "longbench", *given_names("longbench")], 3,
        f"line 8 of {path} has the answer 'nowhere', which names no paragraph",
    )  # fmt: skip


def test_what_neither_path_nor_command_line_say_is_asked_for(kvgauge: Command, tmp_path: Path) -> None:
    path = write(tmp_path, "longbench", golden("difflib")[0])
    refused(
        kvgauge,
        tmp_path,
        [str(path), "--format", "longbench", "--budget", "64"],
        2,
        "does not say what --label says: give --label",
    )
    refused(
        kvgauge, tmp_path, [str(path), "--format", "longbench", "--label", "x"], 2, "does not say what --budget says"
    )
    share = tmp_path / "llama_-1/qasper/SnapKV.json"  # a share of the prompt, which the path does not have
    share.parent.mkdir(parents=True)
    share.write_text(bad_line())
    refused(kvgauge, tmp_path, [str(share), "--format", "kvcache_factory"], 2, "does not say what --budget says")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--format", "csv"], 2, "--format csv is unknown: use longbench, kvcache_factory, kvpress"),
        ([], 2, "the following arguments are required: --format"),
        (["--format", "kvpress"], 3, "holds no predictions of format kvpress: they lie at"),
        (["--format", "kvcache_factory"], 3, "holds no predictions of format kvcache_factory"),
        (["--format", "longbench", "--label", "a/b", "--budget", "64"], 2, "--label='a/b' cannot name a folder"),
        (["--format", "longbench", "--label", "x", "--budget", "0"], 2, "budget=0 is below 1 entry"),
        (
            ["--format", "longbench", "--label", "x", "--budget", "64", "--model", "report"],
            2,
            "--model=report is the name of another folder",
        ),
        (["--format", "longbench", "--set", "seed=3"], 2, "--set seed=3 is no setting of the task"),
        (
            ["--format", "longbench", "--set", "task.code_similarity=x", "--label", "x", "--budget", "1"],
            2,
            "task.code_similarity='x'",
        ),
        (["--format", "longbench", "--task", "needle"], 2, "task=needle imports nothing"),
    ],
)
def test_a_bad_option_is_one_line(kvgauge: Command, tmp_path: Path, words: list[str], code: int, message: str) -> None:
    write(tmp_path / "files", "longbench", golden("difflib")[0])
    refused(kvgauge, tmp_path, [str(tmp_path / "files"), *words], code, message)


def test_a_path_that_is_not_there_is_one_line(kvgauge: Command, tmp_path: Path) -> None:
    refused(kvgauge, tmp_path, ["/nowhere", "--format", "longbench"], 3, "/nowhere cannot be read (FileNotFoundError)")


def test_a_file_that_is_named_after_no_dataset_is_refused(kvgauge: Command, tmp_path: Path) -> None:
    path = write(tmp_path, "longbench", golden("difflib")[0])
    other = path.rename(path.with_name("squad.jsonl"))
    refused(
        kvgauge,
        tmp_path,
        [str(other), "--format", "longbench", *given_names("longbench")],
        3,
        "is of 'squad', which is no dataset",
    )


def test_two_files_for_one_cell_are_refused_before_anything_is_written(kvgauge: Command, tmp_path: Path) -> None:
    path = write(tmp_path, "kvpress", golden("difflib")[0])
    (path.parent / "1").mkdir()
    shutil.copy(path, path.parent / "1")
    refused(kvgauge, tmp_path, [str(tmp_path), "--format", "kvpress"], 2, "are both snapkv-12.5%")


def test_a_full_cache_filed_under_several_budgets_is_taken_once_if_its_texts_are_equal(
    kvgauge: Command, tmp_path: Path
) -> None:
    case = golden("difflib")[0]
    path = write(tmp_path / "files", "kvcache_factory", case)
    path.rename(path.with_name("FullKV.json"))
    other = Path(shutil.copytree(tmp_path / "files/llama_128", tmp_path / "files/llama_64")) / "narrativeqa/FullKV.json"
    words = ("--format", "kvcache_factory", "--to", str(tmp_path / "to"))
    done = kvgauge("import", str(tmp_path / "files"), *words)
    assert done.code == 0, done.err
    assert f"{other} is left out: it holds what {path.with_name('FullKV.json')} holds" in done.told
    assert "imported 8 predictions from 1 files: 8 new" in done.out
    shutil.rmtree(tmp_path / "to")
    other.write_text(as_jsonl(lines(case | {"predictions": ["other"] * 8})))
    refused(
        kvgauge,
        tmp_path,
        [str(tmp_path / "files"), "--format", "kvcache_factory"],
        2,
        "are both fullkv-full: import one of them",
    )


def test_the_home_folder_is_the_same_for_cells_and_report(
    kvgauge: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, "kvcache_factory", golden("difflib")[0])
    done = kvgauge("import", str(path), "--format", "kvcache_factory", "--to", "~/to")
    assert done.code == 0, done.err
    assert sorted(part.name for part in (tmp_path / "home/to").iterdir()) == ["llama", "report"]
    assert not (tmp_path / "~").exists()


def test_a_report_that_cannot_be_written_is_an_error(kvgauge: Command, tmp_path: Path) -> None:
    path = write(tmp_path, "kvcache_factory", golden("difflib")[0])
    (tmp_path / "to").mkdir()
    (tmp_path / "to/report").write_text("a file")
    failed = kvgauge("import", str(path), "--format", "kvcache_factory", "--to", str(tmp_path / "to"))
    assert failed.code == 5
    assert "report cannot be written" in failed.err and failed.err.count("\n") == 1


def test_a_cell_that_holds_something_else_is_left_as_it_is(kvgauge: Command, tmp_path: Path) -> None:
    case = golden("difflib")[0]
    words = ("--format", "kvcache_factory", "--to", str(tmp_path / "to"))
    assert kvgauge("import", str(write(tmp_path, "kvcache_factory", case)), *words).code == 0
    before = snapshot(tmp_path / "to")
    path = write(tmp_path, "kvcache_factory", case | {"predictions": ["other"] * 8})
    failed = kvgauge("import", str(path), *words)
    assert failed.code == 5
    assert "was made with imported.file_sha256=" in failed.err and "--label of an import" in failed.err
    assert snapshot(tmp_path / "to") == before
