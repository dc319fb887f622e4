"""The published numbers: whole, with a source each, and equal to their own averages but where a note says otherwise."""

from __future__ import annotations

import csv
from collections import Counter
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest

from harness.errors import DataError
from harness.report.compare import published
from harness.report.compare.published import AVERAGE, FOLDER, Table, claims, columns, same_model, tables
from tasks.longbench.suite import PAPER_DATASETS

COLUMNS = ["model", "suite", "dataset", "method", "budget", "score", "source", "note"]
INDEX = ("tables", "columns", "claims")
FILES = sorted(path for path in FOLDER.glob("*.csv") if path.stem not in INDEX)
MAIN = next(table for table in tables() if table.name == "pyramidkv_longbench")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_file_is_listed_with_its_suite() -> None:
    assert {table.name: table.suite for table in tables()} == {path.stem: rows(path)[0]["suite"] for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_row_has_all_columns_a_source_and_a_number(path: Path) -> None:
    for row in rows(path):
        assert list(row) == COLUMNS
        assert all(row[name] for name in COLUMNS if name != "note")
        assert 0 <= Decimal(row["score"]) <= 100


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_number_stands_twice(path: Path) -> None:
    keys = Counter((row["model"], row["dataset"], row["method"], row["budget"]) for row in rows(path))
    assert max(keys.values()) == 1


@pytest.mark.parametrize("table", tables(), ids=lambda table: table.name)
def test_every_dataset_is_a_column_of_its_suite(table: Table) -> None:
    assert {dataset for numbers in table.rows.values() for dataset in numbers} <= {*columns(table.suite), AVERAGE}


def test_the_columns_begin_with_the_16_datasets_in_the_order_of_the_papers() -> None:
    assert tuple(columns("longbench"))[:16] == PAPER_DATASETS


@pytest.mark.parametrize("model", ["Llama-3-8B-Instruct", "Mistral-7B-Instruct", "Llama-3-70B-Instruct"])
def test_the_main_table_has_16_datasets_and_the_average_in_every_row(model: str) -> None:
    of = MAIN.of(model)
    assert [budget for method, budget in of if method == "PyramidKV"] == ["64", "96", "128", "2048"]
    assert len(of) == 1 + 4 * 4
    assert all(set(numbers) == {*PAPER_DATASETS, AVERAGE} for numbers in of.values())


def test_averages_are_those_of_their_rows_but_where_a_note_says_slip() -> None:
    slips = []
    for table in tables():
        for key, numbers in table.rows.items():
            if AVERAGE not in numbers:
                continue
            parts = [Decimal(number.text) for dataset, number in numbers.items() if dataset != AVERAGE]
            mean = sum(parts) / len(parts)
            printed = Decimal(numbers[AVERAGE].text)
            # PyramidKV's tables cut the last decimals off as often as they round them.
            holds = printed in {mean.quantize(Decimal("0.01"), rounding) for rounding in (ROUND_DOWN, ROUND_HALF_UP)}
            assert holds != numbers[AVERAGE].note.startswith("slip"), (table.name, key)
            if not holds:
                assert f"columns average {mean.quantize(Decimal('0.01'), ROUND_HALF_UP)}" in numbers[AVERAGE].note
                slips.append((table.name, *key))
    assert len(slips) == 13
    at_64_and_96 = [s for s in slips if s[0] == MAIN.name and s[1] == "Mistral-7B-Instruct"]
    assert {budget for *_, budget in at_64_and_96} == {"64", "96"} and len(at_64_and_96) == 8


def test_likely_copy_errors_are_noted() -> None:
    of = MAIN.of("Mistral-7B-Instruct")
    assert all(
        "likely copied" in of[method, budget]["multi_news"].note
        for method in ("SnapKV", "H2O")
        for budget in ("64", "96", "128")
    )
    long_inputs = next(table for table in tables() if table.name == "pyramidkv_128k").of(
        "Llama-3-8B-Instruct-Gradient-1048k"
    )
    streaming = long_inputs["StreamingLLM", "unstated"]
    assert sum("likely copied" in number.note for number in streaming.values()) == 14


def test_the_needle_table_is_in_percent_of_the_full_cache() -> None:
    needle = next(table for table in tables() if table.suite == "needle")
    assert needle.scale == "percent_of_full" and needle.metric == "word_overlap"
    for model in ("Llama-3-8B-Instruct", "Mistral-7B-Instruct", "Llama-3-70B-Instruct"):
        of = needle.of(model)
        assert of["FullKV", "full"]["needle_in_a_haystack"].text == "100.0"
        assert len(of) == 1 + 3 * 3


def test_claims_have_a_source_and_their_shares_a_budget() -> None:
    said = claims("longbench")
    assert {("12.0 %", "2048"), ("0.7 %", "64"), ("0.7 %", "128")} <= {(claim.text, claim.budget) for claim in said}
    assert all(claim.source and claim.note and int(claim.budget) > 0 and 0 < claim.percent < 100 for claim in said)
    assert claims("needle") == ()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("meta-llama/Meta-Llama-3-8B-Instruct", "Llama-3-8B-Instruct"),
        ("llama_3_8b_instruct", "Llama-3-8B-Instruct"),
        ("mistralai/Mistral-7B-Instruct-v0.2", "Mistral-7B-Instruct-v0.2"),
        ("Mistral-7B-Instruct-v0.3", None),
        ("meta-llama/Llama-3.1-8B-Instruct", None),
        ("Hermes-2-Pro-Llama-3-8B-Instruct", None),
        ("tiny", None),
    ],
)
def test_a_model_is_matched_by_its_whole_name(ours: str, theirs: str | None) -> None:
    assert same_model(["", ours], [model for table in tables() for model in table.models]) == theirs


def test_a_missing_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "FOLDER", tmp_path)
    claims.cache_clear()
    with pytest.raises(DataError, match=r"claims\.csv cannot be read .*: restore it, or install kvgauge again"):
        claims("longbench")
    claims.cache_clear()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("longbench,x,many,64,s,n", r"Expected `float`.*\$\[0\]\.percent"),
        ("longbench,x", r"got `null`.*\$\[0\]\.percent"),
        ("longbench,x,0,64,s,n", "> 0"),
    ],
)
def test_a_file_that_is_not_what_it_is_to_be_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, reason: str
) -> None:
    (tmp_path / "claims.csv").write_text(f"suite,claim,percent,budget,source,note\n{line}\n")
    monkeypatch.setattr(published, "FOLDER", tmp_path)
    claims.cache_clear()
    with pytest.raises(
        DataError, match=rf"claims\.csv cannot be read \(.*({reason}).*\): restore it, or install kvgauge again$"
    ):
        claims("longbench")
    claims.cache_clear()


def test_a_number_that_stands_twice_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tables.csv").write_text(
        "name,suite,title,average,scale,metric,protocol\nmine,longbench,Mine,,score,,not known\n"
    )
    row = "llama,qasper,snapkv,64,{},here,\n"
    header = "model,dataset,method,budget,score,source,note\n"
    (tmp_path / "mine.csv").write_text(header + row.format(30) + row.format(31))
    monkeypatch.setattr(published, "FOLDER", tmp_path)
    tables.cache_clear()
    with pytest.raises(DataError, match=r"mine\.csv has llama, snapkv, 64 on qasper twice: delete one of the lines$"):
        tables()
    tables.cache_clear()


def test_the_readme_names_every_table() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"`{path.stem}`" in text or f"`{path.name}`" in text for path in FOLDER.glob("*.csv"))
