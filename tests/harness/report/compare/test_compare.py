"""``kvgauge compare``: a made-up results folder beside published numbers, and beside another one."""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from harness.report.compare.published import columns, tables
from harness.report.stats.bootstrap import TaskDraws, summarize
from harness.results import Cell, Manifest, Record
from harness.store.cells import CellWriter, cell_folder
from harness.store.reader import read_results
from tasks.longbench.suite import PAPER_DATASETS
from tests.conftest import Command

MODEL = "Llama-3-8B-Instruct"
PUBLISHED = next(table for table in tables() if table.name == "pyramidkv_longbench").of(MODEL)
CLASSES = {
    "fullkv": "methods.fullkv.FullKV",
    "streamingllm": "methods.streamingllm.StreamingLLM",
    "h2o": "methods.h2o.H2O",
    "snapkv": "methods.snapkv.SnapKV",
    "pyramidkv": "methods.pyramidkv.PyramidKV",
}
LONGBENCH = {
    "_target_": "tasks.longbench.suite.LongBench",
    "name": "longbench",
    "data": None,
    "datasets": "paper",
    "protocol": "paper",
    "max_prompt_tokens": None,
    "chat": None,
    "chat_arguments": {},
    "code_similarity": "levenshtein",
    "official_zero": True,
    "rouge_score": False,
}
NEEDLE = {"_target_": "tasks.needle.task.Needle", "name": "needle", "show": "word_overlap"}


def write(
    results: Path,
    scores: Sequence[float | None],
    cell: Cell,
    task: str = "longbench-qasper",
    config: Mapping[str, Any] = LONGBENCH,
    model: str = MODEL,
    method: Mapping[str, Any] | None = None,
    metric: str = "m",
    prompt: str = "00",
    tokens: int = 1000,
    published: int | None = None,
) -> None:
    """One cell with one record per score, 0-1; None is an error record. ``method`` without a class is an imported
    cell."""
    found = {"class": CLASSES[cell.label], "window": 8} if method is None else method
    manifest = Manifest(
        cell=cell,
        place=list(CLASSES).index(cell.label) if cell.label in CLASSES else 9,
        model=model,
        task=task,
        settings={"model": {"dtype": "float16"}, "selection": {"granularity": "query_head"}}
        | ({"method": found} if found else {}),
        metrics=[{"name": metric, "title": metric, "maximum": 1.0}],
        heatmap_axes=None,
        note="",
        breakdown=None,
        published=published,
        task_config=config,
        provenance={},
    )
    budget = tokens if cell.budget == "full" else min(tokens, int(cell.budget.removesuffix("%")))
    records = [
        Record(str(place), {}, ["a"], {}, tokens, prompt, tokens_before_truncation=2 * tokens, error="no")
        if score is None
        else Record(
            str(place),
            {},
            ["a"],
            {},
            tokens,
            prompt,
            tokens_before_truncation=2 * tokens,
            text="x",
            scores={metric: score},
            kept=[budget],
            retention=budget / tokens,
            retention_bytes=2 * budget / tokens,
        )
        for place, score in enumerate(scores)
    ]
    with closing(CellWriter(cell_folder(results, model, task, cell), manifest)) as writer:
        writer.append(records)


def write_longbench(results: Path, datasets: Sequence[str] = PAPER_DATASETS, n: int = 20, **changes: Any) -> None:
    """All five methods at 64 and 128 on scores around the published ones."""
    for (method, budget), numbers in PUBLISHED.items():
        if budget in ("full", "64", "128"):
            for dataset in datasets:
                draw = random.Random(f"{method}{budget}{dataset}")
                share = numbers[dataset].value / 100
                scores = [float(draw.random() < share) for _ in range(n)]
                write(results, scores, Cell(method.lower(), budget), task=f"longbench-{dataset}", **changes)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def lines_of(markdown: str, section: str) -> list[list[str]]:
    """The rows of a section's table, header first."""
    part = re.split(r"^## ", markdown, flags=re.MULTILINE)
    (text,) = (p for p in part if p.startswith(section))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return [rows[0], *rows[2:]]


def test_the_layout_is_that_of_the_paper(kvgauge: Command, tmp_path: Path) -> None:
    write_longbench(tmp_path)
    done = kvgauge("compare", "--wide", str(tmp_path))
    assert done.code == 0, done.err
    folder = tmp_path / "report" / MODEL / "longbench" / "pyramidkv_longbench"
    assert {path.name for path in folder.iterdir()} == {
        f"{stem}.{of}" for stem in ("compare", "claims") for of in ("md", "csv", "tex")
    }
    rows = lines_of((folder / "compare.md").read_text(), "By dataset")
    titles = [columns("longbench")[dataset] for dataset in PAPER_DATASETS]
    assert rows[0] == ["method", "budget", "", *titles, "average of 16"]
    assert rows[1] == ["examples", "", "", *["20"] * 16, "–"]
    heads = [(row[0], row[1]) for row in rows[2:] if row[0]]
    assert heads[:5] == [
        ("FullKV", "full"),
        ("SnapKV", "64"),
        ("H2O", "64"),
        ("StreamingLLM", "64"),
        ("PyramidKV", "64"),
    ]
    # The published budgets that we did not run stand there, with dashes for ours.
    assert [budget for method, budget in heads if method == "PyramidKV"] == ["64", "96", "128", "2048"]
    at = next(place for place, row in enumerate(rows) if row[:2] == ["PyramidKV", "64"])
    assert [row[2] for row in rows[at : at + 6]] == [
        "ours",
        "95 % low",
        "95 % high",
        "theirs",
        "difference",
        "theirs is",
    ]
    assert rows[at + 3][3:] == [number.text for number in PUBLISHED["PyramidKV", "64"].values()]
    assert set(rows[at + 5][3:]) <= {"inside", "outside"}
    at = next(place for place, row in enumerate(rows) if row[:2] == ["PyramidKV", "2048"])
    assert [row[2] for row in rows[at : at + 2]] == ["ours", "theirs"] and set(rows[at][3:]) == {"–"}
    for text in (done.out, (folder / "compare.tex").read_text()):
        assert "NrtvQA" in text and "of 16" in text and "PyramidKV" in text


def test_numbers_intervals_and_verdicts_are_those_of_the_records(kvgauge: Command, tmp_path: Path) -> None:
    write_longbench(tmp_path)
    kvgauge("compare", "--wide", str(tmp_path))
    found = read_csv(tmp_path / "report" / MODEL / "longbench" / "pyramidkv_longbench" / "compare.csv")
    by_key = {(row["method"], row["budget"], row["column"]): row for row in found}
    grids = {grid.result.task: grid.result for grid in read_results(tmp_path).grids}
    ours = []
    for dataset in PAPER_DATASETS:
        row = by_key["SnapKV", "128", dataset]
        value, low, high = summarize(TaskDraws(grids[f"longbench-{dataset}"]).score(Cell("snapkv", "128")))
        assert [float(row[name]) for name in ("ours", "ours_low", "ours_high")] == pytest.approx([value, low, high])
        theirs = PUBLISHED["SnapKV", "128"][dataset].value
        assert float(row["theirs"]) == theirs and float(row["difference"]) == pytest.approx(value - theirs)
        assert row["theirs_is"] == ("inside" if low <= theirs <= high else "outside")
        assert row["source"] == "PyramidKV, arXiv:2406.02069, tables 11-13 (appendix N of the later version)"
        ours.append(value)
    average = by_key["SnapKV", "128", "average"]
    assert float(average["ours"]) == pytest.approx(sum(ours) / 16) and average["n"] == "320"
    assert {row["theirs_is"] for row in found} == {"inside", "outside", ""}


def test_what_is_missing_on_either_side_is_a_dash(kvgauge: Command, tmp_path: Path) -> None:
    write(tmp_path, [1.0, 0.0, 1.0] * 2, Cell("snapkv", "64"))
    write(tmp_path, [*[1.0] * 5, None], Cell("snapkv", "32"))
    write(tmp_path, [1.0], Cell("snapkv", "64"), task="longbench-lsht")
    done = kvgauge("compare", "--wide", str(tmp_path))
    rows = lines_of(
        (tmp_path / "report" / MODEL / "longbench" / "pyramidkv_longbench" / "compare.md").read_text(), "By dataset"
    )
    place = rows[0].index("Qasper")
    ours = next(row for row in rows if row[:2] == ["SnapKV", "64"])
    assert ours[place] == "66.67" and set(ours[3:place] + ours[place + 1 :]) == {"–"}  # one dataset makes no average
    at = next(place for place, row in enumerate(rows) if row[:2] == ["SnapKV", "32"])
    of_32 = {row[2]: row[place] for row in rows[at : at + 5]}
    assert of_32 == {"ours": "100.00", "95 % low": "100.00", "95 % high": "100.00", "theirs": "–", "n": "5 of 6"}
    assert "n of N: our numbers cover only the n examples that have a result." in done.out
    assert "not in the published table: lsht." in done.out
    assert "nan" not in done.out.lower()


def test_slips_of_the_paper_are_marked(kvgauge: Command, tmp_path: Path) -> None:
    write(tmp_path, [1.0, 0.0], Cell("snapkv", "64"))
    done = kvgauge("compare", "--wide", str(tmp_path), "--model", "Mistral-7B-Instruct")
    mark = re.search(r"\[(\d+)\] slip: 30\.72 is printed, and the row's 16 columns average 31\.87", done.out)
    assert mark and f"30.72 [{mark[1]}]" in done.out


def test_methods_are_matched_by_class_and_not_by_label(kvgauge: Command, tmp_path: Path) -> None:
    write(tmp_path, [1.0, 0.0], Cell("pyramidkv", "128"), method={"class": CLASSES["snapkv"], "window": 8})
    write(tmp_path, [1.0, 1.0], Cell("wide", "128"), method={"class": CLASSES["snapkv"], "window": 32})
    done = kvgauge("compare", "--wide", str(tmp_path))
    found = read_csv(tmp_path / "report" / MODEL / "longbench" / "pyramidkv_longbench" / "compare.csv")
    qasper = {
        row["label"]: row for row in found if row["column"] == "qasper" and row["budget"] == "128" and row["label"]
    }
    assert {(row["method"], row["theirs"]) for row in qasper.values()} == {("SnapKV", "13.55")}
    assert "pyramidkv and wide are all SnapKV by their class" in done.out
    assert "wide: window=32." in done.out


def test_an_imported_cell_goes_by_its_label(kvgauge: Command, tmp_path: Path) -> None:
    write(tmp_path, [1.0, 0.0], Cell("SnapKV", "128"), method={})
    done = kvgauge("compare", "--wide", str(tmp_path))
    found = read_csv(tmp_path / "report" / MODEL / "longbench" / "pyramidkv_longbench" / "compare.csv")
    assert [row["theirs"] for row in found if row["label"] == "SnapKV" and row["column"] == "qasper"] == ["13.55"]
    assert "matched by label, as an imported cell has no class: SnapKV" in done.out


def test_another_table_of_the_model_can_be_chosen(kvgauge: Command, tmp_path: Path) -> None:
    write(tmp_path, [1.0, 0.0], Cell("snapkv", "1024"))
    done = kvgauge("compare", "--wide", str(tmp_path), "--table", "headkv_longbench", "--to", str(tmp_path / "to"))
    assert "Average of 6" in done.out and "27.50" in done.out and "HeadKV (ICLR 2025)" in done.out
    assert (tmp_path / "to" / MODEL / "longbench" / "headkv_longbench" / "compare.md").is_file()


def test_the_needle_is_compared_in_percent_of_the_full_cache(kvgauge: Command, tmp_path: Path) -> None:
    def needle(scores: Sequence[float | None], cell: Cell) -> None:
        write(tmp_path, scores, cell, task="needle", config=NEEDLE, metric="word_overlap")

    needle([0.5, 1.0, 0.5, 1.0], Cell("fullkv", "full"))
    needle([0.5, 0.5, 0.5, None], Cell("snapkv", "128"))
    done = kvgauge("compare", "--wide", str(tmp_path))
    assert done.code == 0, done.err
    rows = lines_of(
        (tmp_path / "report" / MODEL / "needle" / "pyramidkv_needle" / "compare.md").read_text(), "By dataset"
    )
    assert rows[0][3:] == ["% of FullKV", r"word\_overlap (0-100)"]
    assert next(row for row in rows if row[:2] == ["FullKV", "full"])[3:] == ["100.00", "75.00"]
    at = next(place for place, row in enumerate(rows) if row[:2] == ["SnapKV", "128"])
    # 0.5 of 0.667, the full cache's mean over the three examples that both have.
    assert rows[at][2:] == ["ours", "75.00", "50.00"]
    assert next(row for row in rows[at:] if row[2] == "theirs")[3:] == ["87.4", "–"]
    assert not (tmp_path / "report" / MODEL / "needle" / "pyramidkv_needle" / "claims.md").exists()


def test_a_needle_without_the_full_cache_says_so(kvgauge: Command, tmp_path: Path) -> None:
    write(tmp_path, [1.0, 0.5], Cell("snapkv", "128"), task="needle", config=NEEDLE, metric="word_overlap")
    done = kvgauge("compare", "--wide", str(tmp_path))
    assert "Nothing of ours is in percent of the full cache" in done.out and "75.00" in done.out


def test_another_needle_is_not_held_against_the_published_one(kvgauge: Command, tmp_path: Path) -> None:
    write(
        tmp_path,
        [1.0],
        Cell("snapkv", "128"),
        task="needle",
        config={**NEEDLE, "show": "contains_answer"},
        metric="contains_answer",
    )
    done = kvgauge("compare", "--wide", str(tmp_path))
    assert done.code == 2
    assert "task needle records contains_answer, and PyramidKV" in done.err and "has word_overlap: " in done.err


def test_what_has_no_counterpart_is_left_out_and_said_to_be(kvgauge: Command, tmp_path: Path) -> None:
    cell = Cell("snapkv", "64")
    write(tmp_path, [1.0], cell)
    write(tmp_path, [1.0], cell, model="made-up")
    write(tmp_path, [1.0], cell, task="magic", config={**NEEDLE, "name": "magic"}, metric="contains_answer")
    write(tmp_path, [1.0], cell, task="tokens", config={"_target_": "tasks.tokens.Tokens", "name": "tokens"})
    done = kvgauge("compare", "--wide", str(tmp_path))
    assert done.code == 0, done.err
    left_out = [line for line in done.out.splitlines() if line.startswith("left out: ")]
    assert len(left_out) == 3
    assert "longbench on Llama-3-8B-Instruct beside PyramidKV" in done.out and "made-up beside" not in done.out


def test_claims_stand_beside_what_was_measured(kvgauge: Command, tmp_path: Path) -> None:
    write(tmp_path, [1.0, 0.0], Cell("snapkv", "128"), tokens=4000)
    done = kvgauge("compare", "--wide", str(tmp_path))
    folder = tmp_path / "report" / MODEL / "longbench" / "pyramidkv_longbench"
    found = {(row["method"], row["budget"]): row for row in read_csv(folder / "claims.csv")}
    ours = found["snapkv", "128"]
    assert ours["papers_say"] == "0.7" and float(ours["prompt_tokens_mean"]) == 4000
    assert float(ours["tokens_before_truncation_mean"]) == 8000
    assert [float(ours[name]) for name in ("budget_share", "retention", "retention_bytes")] == [0.032, 0.032, 0.064]
    assert found["", "2048"]["papers_say"] == "12 25" and float(found["", "2048"]["budget_share"]) == 0.512
    shown = {row[1]: row for row in lines_of((folder / "claims.md").read_text(), "Shares")}
    assert shown["2048"] == [
        "–",
        "2048",
        "12.0 % (of 17067 tokens); 25.0 % (of 8192 tokens)",
        "4000",
        "8000",
        "51.2",
        "–",
        "–",
    ]
    assert shown["128"] == ["snapkv", "128", "0.7 % (of 18286 tokens)", "4000", "8000", "3.20", "3.20", "6.40"]
    assert "12.0 % at 2048: PyramidKV, arXiv:2406.02069, introduction" in done.out


def test_unknown_prompt_lengths_are_dashes(kvgauge: Command, tmp_path: Path) -> None:
    cell = Cell("SnapKV", "128")
    write(tmp_path, [], cell, method={})
    (grid,) = read_results(tmp_path).grids
    imported = Record("0", {}, ["a"], {}, None, None, text="x", scores={"m": 1.0})
    with closing(CellWriter(grid.folders[cell], grid.manifests[cell])) as writer:
        writer.append([imported, structs.replace(imported, example_id="1")])
    done = kvgauge("compare", "--wide", str(tmp_path))
    assert done.code == 0, done.err
    shown = lines_of(
        (tmp_path / "report" / MODEL / "longbench" / "pyramidkv_longbench" / "claims.md").read_text(), "Shares"
    )
    assert next(row for row in shown if row[0] == "SnapKV")[3:] == ["–"] * 5


def test_two_folders_are_paired_by_example(kvgauge: Command, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for dataset in PAPER_DATASETS:
        write(a, [0.0, 0.5, 1.0, 1.0] * 2, Cell("snapkv", "64"), task=f"longbench-{dataset}")
        write(b, [0.5, 1.0, 1.0, None] * 2, Cell("snapkv", "64"), task=f"longbench-{dataset}", model="other")
    write(b, [0.5], Cell("h2o", "64"), task="longbench-qasper", model="other")
    done = kvgauge("compare", "--wide", str(a), str(b))
    assert done.code == 0, done.err
    folder = a / "report" / MODEL / "longbench"
    found = {(row["method"], row["column"]): row for row in read_csv(folder / "paired.csv")}
    qasper = found["snapkv", "qasper"]
    assert float(qasper["a"]) == 62.5 and float(qasper["b"]) == pytest.approx(250 / 3)
    assert float(qasper["difference"]) == pytest.approx(100 / 3)  # over the pairs, not the difference of the means
    assert float(qasper["difference_low"]) <= 100 / 3 <= float(qasper["difference_high"])
    assert (qasper["n"], qasper["expected"], qasper["errors"], qasper["other_prompts"]) == ("6", "8", "2", "0")
    average = found["snapkv", "average of 16"]
    assert (
        float(average["difference"]) == pytest.approx(100 / 3)
        and average["zero_is"] == "outside"
        and average["n"] == "96"
    )
    assert found["h2o", "qasper"]["difference"] == "" and found["h2o", "qasper"]["b"] == "50.0"
    rows = lines_of((folder / "paired.md").read_text(), "By task")
    assert rows[0][3:5] == ["narrativeqa", "qasper"] and len(rows[0]) == 3 + 16
    assert ["snapkv", "64", "average of 16"] in [
        row[:3] for row in lines_of((folder / "paired.md").read_text(), "Averages")
    ]
    assert f"A: {a}. B: {b}." in done.out
    assert (folder / "paired.tex").is_file()


def test_examples_with_another_prompt_are_no_pairs(kvgauge: Command, tmp_path: Path) -> None:
    cell, a, b = Cell("snapkv", "64"), tmp_path / "a", tmp_path / "b"
    write(a, [0.5] * 7, cell)
    write(b, [*[0.75] * 5, 0.0, 0.0], cell, prompt="11")
    write(b, [0.75] * 5, cell)
    done = kvgauge("compare", "--wide", str(a), str(b))
    assert done.code == 0, done.err
    (row,) = (row for row in read_csv(a / "report" / MODEL / "longbench" / "paired.csv") if row["column"] == "qasper")
    assert (row["difference"], row["n"], row["expected"], row["other_prompts"]) == ("25.0", "5", "7", "2")
    assert float(row["b"]) == pytest.approx(100 * 3.75 / 7), "B's own mean has all of its results"
    assert "2 examples have another prompt in B than in A and are left out of the difference." in done.out


@pytest.mark.parametrize(
    ("published", "verdict"), [(200, "trial: 6 of 200"), (5, "more: 6 of 5"), (7, "outside"), (None, "outside")]
)
def test_another_number_of_examples_is_not_held_against_the_published_number(
    kvgauge: Command, tmp_path: Path, published: int | None, verdict: str
) -> None:
    write(tmp_path, [*[1.0] * 6, None], Cell("snapkv", "64"), published=published)
    done = kvgauge("compare", "--wide", str(tmp_path))
    folder = tmp_path / "report" / MODEL / "longbench" / "pyramidkv_longbench"
    (row,) = (row for row in read_csv(folder / "compare.csv") if row["column"] == "qasper" and row["label"])
    assert row["theirs_is"] == verdict
    layout = {row[2]: row for row in lines_of((folder / "compare.md").read_text(), "By dataset")[::-1]}
    place = list(columns("longbench")).index("qasper") + 3
    assert layout["theirs is"][place] == verdict.partition(":")[0]
    assert layout["n"][place] == f"6 of {max(published or 7, 7)}"
    assert ("ours is not held against it" in done.out) == (published in (200, 5))
    averages = lines_of((folder / "compare.md").read_text(), "Average of 16")
    inside = next(row for row in averages if row[:2] == ["SnapKV", "64"])[averages[0].index("datasets inside")]
    assert inside == ("–" if published in (200, 5) else "0 of 1")


def test_few_examples_have_no_interval_and_no_verdict(kvgauge: Command, tmp_path: Path) -> None:
    write(tmp_path, [1.0] * 4, Cell("snapkv", "64"))
    done = kvgauge("compare", "--wide", str(tmp_path))
    found = read_csv(tmp_path / "report" / MODEL / "longbench" / "pyramidkv_longbench" / "compare.csv")
    (row,) = (row for row in found if row["column"] == "qasper" and row["label"])
    assert (row["ours"], row["ours_low"], row["theirs_is"]) == ("100.0", "", "")
    assert "no interval: fewer than 5 examples say too little of others." in done.out


def test_equal_folders_differ_by_zero(kvgauge: Command, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(
            tmp_path / name, [0.0, 1.0] * 3, Cell("snapkv", "64"), task="needle", config=NEEDLE, metric="word_overlap"
        )
    done = kvgauge("compare", "--wide", str(tmp_path / "a"), str(tmp_path / "b"))
    assert done.code == 0, done.err
    (row,) = read_csv(tmp_path / "a" / "report" / MODEL / "needle" / "paired.csv")
    assert (row["difference"], row["difference_low"], row["difference_high"], row["zero_is"]) == (
        "0.0",
        "0.0",
        "0.0",
        "inside",
    )


ERRORS = {
    (
        "no published model of longbench is called made-up: use --model with one of Llama-3-8B-Instruct, "
        "Mistral-7B-Instruct"
    ): ["{other}"],
    "no published table of longbench has nobody: use --model with one of Llama-3-8B-Instruct": [
        "{ours}",
        "--model",
        "nobody",
    ],
    "--table t1 is no published table of these tasks: use pyramidkv_longbench, snapkv_longbench": [
        "{ours}",
        "--table",
        "t1",
    ],
    "no published model of longbench is called Llama-3-8B-Instruct: use --model with one of LWM-Text-Chat-1M": [
        "{ours}",
        "--table",
        "snapkv_longbench",
    ],
    "--model is one model, and none of Llama-3-8B-Instruct, made-up is called LWM-Text-Chat-1M: give the folder of": [
        "{both}",
        "--model",
        "LWM-Text-Chat-1M",
    ],
    "nothing is published for task tokens: compare results of longbench, needle, or give a second folder": ["{tokens}"],
    "{empty} holds no cell": ["{empty}"],
    "--model and --table choose published numbers, and two results folders were given": [
        "{ours}",
        "{other}",
        "--model",
        "x",
    ],
    (
        "{ours} and {tokens} have no task of one model in common: the first has longbench-qasper of "
        "Llama-3-8B-Instruct, the second tokens of Llama-3-8B-Instruct; give"
    ): ["{ours}", "{tokens}"],
    "{both} and {third} have no task of one model in common: the first has longbench-qasper of Llama": [
        "{both}",
        "{third}",
    ],
    "task longbench-qasper shows m in one folder and m2 in the other: score one as the other, with kvgauge score": [
        "{ours}",
        "{metric}",
    ],
    "cannot be written (Not a directory): choose another folder with --to": ["{ours}", "--to", "{file}"],
}


NAMES = ("ours", "other", "both", "tokens", "empty", "metric", "third", "file")


@pytest.mark.parametrize("message", ERRORS)
def test_what_cannot_be_compared_is_one_line(message: str, kvgauge: Command, tmp_path: Path) -> None:
    places = {name: str(tmp_path / name) for name in NAMES}
    cell = Cell("snapkv", "64")
    write(tmp_path / "ours", [1.0], cell)
    write(tmp_path / "other", [1.0], cell, model="made-up")
    for model in (MODEL, "made-up"):
        write(tmp_path / "both", [1.0], cell, model=model)
    write(tmp_path / "tokens", [1.0], cell, task="tokens", config={"_target_": "tasks.tokens.Tokens", "name": "tokens"})
    write(tmp_path / "metric", [1.0], cell, metric="m2")
    write(tmp_path / "third", [1.0], cell, model="third")
    (tmp_path / "file").touch()
    done = kvgauge("compare", "--wide", *(word.format(**places) for word in ERRORS[message]))
    assert done.code in (2, 5)
    assert message.format(**places) in done.err
    assert done.err.count("\n") == 1


@pytest.mark.slow
def test_a_run_of_a_published_model_ends_with_its_numbers_beside_ours(kvgauge: Command, tmp_path: Path) -> None:
    words = ("method=[fullkv,snapkv]", "budget=64", "task.lengths=[300]", "task.depths=[50]", f"results_dir={tmp_path}")
    beside = tmp_path / "report/Llama-3-8B-Instruct/needle/pyramidkv_needle/compare.md"
    assert str(beside.parent) in kvgauge(*words, "model.name=Llama-3-8B-Instruct").out
    before = beside.read_bytes()
    beside.unlink()
    assert kvgauge("report", str(tmp_path)).code == 0
    assert beside.read_bytes() == before
    assert not list((tmp_path / "report/tiny").glob("**/compare.md")) and "compare.md" not in kvgauge(*words).out


def test_of_two_models_in_a_folder_the_one_that_was_asked_for_is_compared(kvgauge: Command, tmp_path: Path) -> None:
    cell = Cell("snapkv", "64")
    for model in (MODEL, "tiny"):
        write(tmp_path, [1.0] * 6, cell, model=model)
    done = kvgauge("compare", str(tmp_path), "--model", MODEL)
    assert done.code == 0, done.err
    assert f"longbench on {MODEL} beside PyramidKV" in done.out and "tiny" not in done.out


def test_another_model_is_said_to_be_one(kvgauge: Command, tmp_path: Path) -> None:
    cell = Cell("snapkv", "64")
    for name, model in (("a", MODEL), ("b", "mine")):
        write(tmp_path / name, [1.0] * 6, cell, model=model)
    done = kvgauge("compare", str(tmp_path / "a"), str(tmp_path / "b"))
    assert done.code == 0, done.err
    assert f"A is of {MODEL}, B of another model, mine." in done.out


def test_other_weights_under_the_same_name_are_another_model(kvgauge: Command, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, [1.0] * 6, Cell("snapkv", "64"))
    same = kvgauge("compare", str(tmp_path / "a"), str(tmp_path / "b"))
    (path,) = (tmp_path / "b").rglob("manifest.json")
    manifest = json.loads(path.read_text())
    manifest["settings"]["model"] = {"dtype": "bfloat16"}
    path.write_text(json.dumps(manifest))
    other = kvgauge("compare", str(tmp_path / "a"), str(tmp_path / "b"))
    assert "another model" not in same.out
    assert "B is of another model than A: model.dtype is bfloat16, and float16 in A." in other.out.replace("\n", " ")


def test_all_datasets_that_are_missing_are_named_at_once(kvgauge: Command, tmp_path: Path) -> None:
    cell = Cell("snapkv", "64")
    for name, datasets in (("a", ("qasper", "trec", "lcc")), ("b", ("qasper", "samsum"))):
        for dataset in datasets:
            write(tmp_path / name, [1.0] * 6, cell, task=f"longbench-{dataset}")
    done = kvgauge("compare", str(tmp_path / "a"), str(tmp_path / "b"))
    assert done.code == 0, done.err
    out = " ".join(done.out.split())
    assert f"not in A, and left out: longbench-samsum of {MODEL}." in out
    assert f"not in B, and left out: longbench-trec, longbench-lcc of {MODEL}." in out.replace(
        "lcc, longbench-trec", "trec, longbench-lcc"
    )
    published = " ".join(kvgauge("compare", str(tmp_path / "a")).out.split())
    missing = [name for name in PAPER_DATASETS if name not in ("qasper", "trec", "lcc")]
    assert f"missing here: {', '.join(missing)}." in published


def test_what_one_folder_lacks_is_said_once_with_the_suite_that_it_is_of(kvgauge: Command, tmp_path: Path) -> None:
    cell = Cell("snapkv", "64")
    there = {
        "a": (("one", "qasper"), ("one", "trec"), ("two", "qasper"), ("three", "qasper")),
        "b": (("one", "qasper"), ("two", "qasper"), ("two", "lcc")),
    }
    for name, tasks in there.items():
        for suite, task in tasks:
            config = {**LONGBENCH, "name": suite}
            write(tmp_path / name, [1.0] * 6, cell, task=f"{suite}-{task}", config=config)
    done = kvgauge("compare", str(tmp_path / "a"), str(tmp_path / "b"))
    assert done.code == 0, done.err
    out = " ".join(done.out.split())
    for side, task in (("B", "one-trec"), ("A", "two-lcc"), ("B", "three-qasper")):
        assert out.count(f"not in {side}, and left out: {task} of {MODEL}.") == 1


def test_all_reasons_for_which_nothing_is_compared_are_named(kvgauge: Command, tmp_path: Path) -> None:
    for model in ("one", "two"):
        write(tmp_path, [1.0], Cell("snapkv", "64"), model=model)
    done = kvgauge("compare", str(tmp_path))
    assert done.code == 2 and done.err.count("\n") == 1
    assert "is called one" in done.err and "is called two" in done.err
