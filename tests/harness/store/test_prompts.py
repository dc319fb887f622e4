"""Prompts beside the cells: written once, read whatever a kill or a stranger left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import StoreError
from harness.store.prompts import PromptFile, read_prompt, saved_prompts
from harness.store.shards import ALONE, Worker
from harness.text import packed

ONE, TWO, THREE = (digit * 64 for digit in "123")


def texts(folder: Path) -> dict[str, str]:
    return {sha256: read_prompt(saved) for sha256, saved in saved_prompts(folder).items()}


def test_a_prompt_is_written_once_whichever_worker_has_it(tmp_path: Path) -> None:
    PromptFile(tmp_path, Worker("0of2", "x")).append([(ONE, "é </script> \ud800")])
    file = PromptFile(tmp_path, ALONE)
    file.append([(ONE, "another text"), (TWO, "two"), (TWO, "two")])
    file.append([(TWO, "two")])
    assert texts(tmp_path) == {ONE: "é </script> \ud800", TWO: "two"}
    assert len((tmp_path / "prompts.0.jsonl").read_text().splitlines()) == 1


def test_a_torn_line_costs_its_prompt_alone_until_that_is_written_again(tmp_path: Path) -> None:
    PromptFile(tmp_path, ALONE).append([(ONE, "one"), (TWO, "two")])
    path = tmp_path / "prompts.0.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    assert texts(tmp_path) == {ONE: "one"}
    PromptFile(tmp_path, ALONE).append([(THREE, "three"), (TWO, "two")])
    assert texts(tmp_path) == {ONE: "one", TWO: "two", THREE: "three"}


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "[" * 5000,
        json.dumps({"prompt_sha256": "../" * 20, "packed": packed("x")}),
        json.dumps({"prompt_sha256": ONE, "packed": 3}),
        "\xff\xfe",
    ],
)
def test_lines_of_another_kind_are_skipped(tmp_path: Path, line: str) -> None:
    (tmp_path / "prompts.0.jsonl").write_bytes(line.encode("latin-1") + b"\n")
    PromptFile(tmp_path, ALONE).append([(TWO, "two")])
    assert texts(tmp_path) == {TWO: "two"}


@pytest.mark.parametrize(
    "saved", ["", "no base64!", "AAAA", packed("long text")[:-12], packed({"no": "text"}), packed("0" * 70_000_000)]
)
def test_what_is_no_packed_text_is_no_prompt(saved: str) -> None:
    with pytest.raises(ValueError, match="."):
        read_prompt(saved)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"prompts\.0\.jsonl cannot be written"):
        PromptFile(tmp_path / "nowhere", ALONE).append([(ONE, "one")])
