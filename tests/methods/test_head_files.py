"""Files of head scores, head values and curves: a bad one is refused in one line, with what it should hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.compression.allocation import Shape
from harness.compression.budget import Budget
from harness.compression.grid import Variant
from harness.compression.method import Method
from harness.errors import ConfigError
from harness.results import Cell
from methods.duo import Duo
from methods.headkv import HeadKV
from methods.knorm import Knorm
from methods.lukv import LUKV
from tests.conftest import Command

Make = Callable[[str | None], Method]

MAKE: dict[str, Make] = {
    "headkv": lambda file: HeadKV("headkv", file, 8, 7, "maxpool", 1.1, 1.0, False),
    "duo": lambda file: Duo("duo", file, 0.5, 4, 16),
    "lukv": lambda file: LUKV("lukv", Knorm("knorm"), file, 4, 1),
}


def scores(layers: int, heads: int) -> dict[str, list[float]]:
    return {f"{layer}-{head}": [1.0 + layer, head / 7] for layer in range(layers) for head in range(heads)}


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def saved(array: Any) -> Callable[[Path], None]:
    return lambda path: np.save(path.open("wb"), array)


BAD: list[tuple[str, str, bytes | Callable[[Path], None], str]] = [
    ("headkv", "no JSON", b"0-0: 1", "is no JSON in its first line"),
    ("headkv", "empty", b"", "is no JSON in its first line"),
    ("headkv", "a list", b"[1, 2]", "holds no JSON object"),
    ("headkv", "no heads", b"{}", "holds no JSON object"),
    ("headkv", "other keys", as_json({"layer 0": [1.0]}), 'has {"layer 0": [1.0]}'),
    ("headkv", "no trials", as_json({"0-0": []}), 'has {"0-0": []}'),
    ("headkv", "texts", as_json({"0-0": ["1"]}), 'has {"0-0": ["1"]}'),
    ("headkv", "a head missing", as_json({"0-0": [1.0], "1-1": [1.0]}), "has 2 of 2 x 2 heads"),
    ("headkv", "all zero", as_json({"0-0": [0.0]}), "has means that are below 0, not finite or all 0"),
    ("headkv", "binary", b"\xff\xfe\x00", "is no text"),
    ("duo", "words", b"full\tstreaming\n", "is no table of numbers"),
    ("duo", "ragged", b"1\t0\n1\n", "is no table of numbers"),
    ("duo", "empty", b"", "is no table of numbers"),
    ("duo", "not a number", b"nan\t1\n", "is no table of numbers"),
    ("lukv", "a text", b"0.1 0.2", "is no numpy array"),
    ("lukv", "empty", b"", "is no numpy array"),
    ("lukv", "two dimensions", saved(np.ones((99, 4))), "holds [99, 4]"),
    ("lukv", "100 rows", saved(np.ones((100, 2, 2))), "holds [100, 2, 2]"),
    ("lukv", "objects", saved(np.array([{}], dtype=object)), "is no numpy array"),
    (
        "lukv",
        "kept instead of dropped, in percent",
        saved(np.full((99, 2, 2), 50)),
        "has shares that are not from 0 to 1",
    ),
]


@pytest.mark.parametrize(
    ("method", "content", "fact"), [row[:1] + row[2:] for row in BAD], ids=[" ".join(row[:2]) for row in BAD]
)
def test_a_file_of_another_form_is_refused_in_one_line(method: str, content: Any, fact: str, tmp_path: Path) -> None:
    path = tmp_path / "given"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    with pytest.raises(ConfigError) as refused:
        MAKE[method](str(path))
    text = str(refused.value)
    assert text.startswith(f"file={path} (method={method}) {fact}: give a file with ")
    assert "\n" not in text


@pytest.mark.parametrize("method", MAKE)
def test_a_file_that_is_missing_or_a_folder_is_refused_in_one_line(method: str, tmp_path: Path) -> None:
    for path, fact in [(tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")]:
        with pytest.raises(ConfigError) as refused:
            MAKE[method](str(path))
        assert str(refused.value).startswith(
            f"file={path} (method={method}) cannot be read ({fact}): give a file with "
        )
    with pytest.raises(
        ConfigError, match=rf"^file=null \(method={method}\): give a file with .*: method.{method}.file=<path>$"
    ):
        MAKE[method](None)


@pytest.mark.parametrize(("method", "by"), [("headkv", "query"), ("duo", "kv"), ("lukv", "kv")])
def test_a_table_of_another_model_is_refused_in_one_line(method: str, by: str, tmp_path: Path) -> None:
    path = tmp_path / "given"
    if method == "headkv":
        path.write_text(json.dumps(scores(2, 4)))
    elif method == "duo":
        path.write_text("1\t0\t1\t0\n" * 2)
    else:
        np.save(path.open("wb"), np.full((99, 2, 4), 0.5))
    variant = Variant(Cell(method, "20"), MAKE[method](str(path)), Budget("20", tokens=20))
    heads = {"query": (4, 2), "kv": (8, 4)}[by]
    assert variant.plan(Shape(50, 2, *heads, heads[0])).keep
    for layers, many, few in [(3, *heads), (2, 16, 8)]:
        with pytest.raises(ConfigError) as refused:
            variant.plan(Shape(50, layers, many, few, many))
        wanted = many if by == "query" else few
        assert str(refused.value) == (
            f"file={path} has 2 layers of 4 heads, and the model {layers} layers of {wanted} {by} heads: "
            "give the file of this model"
        )


def test_scores_are_placed_by_their_keys_whatever_their_order(tmp_path: Path) -> None:
    ordered, shuffled = tmp_path / "ordered", tmp_path / "shuffled"
    table = scores(2, 12)
    ordered.write_text(json.dumps(table))
    shuffled.write_text(json.dumps(table, sort_keys=True))  # "0-10" before "0-2"
    shape = Shape(500, 2, 12, 12, 12, 8)
    first, second = (MAKE["headkv"](str(path)).allocation.counts(64, shape, ()) for path in (ordered, shuffled))
    assert first == second


@pytest.mark.slow
def test_a_file_with_another_content_is_another_method_and_its_records_are_not_mixed(
    kvgauge: Command, tmp_path: Path
) -> None:
    file = tmp_path / "heads.json"
    file.write_bytes(as_json(scores(8, 4)))
    words = (
        "method=headkv", f"method.headkv.file={file}", "budget=64", "task.lengths=[300]", "task.depths=[50]",
        f"results_dir={tmp_path / 'results'}",
    )  # fmt: skip
    assert kvgauge(*words).code == 0 and "new records: 0" in kvgauge(*words).out
    assert kvgauge("verify", str(tmp_path / "results")).code == 0
    file.write_bytes(as_json({name: [1.0] for name in scores(8, 4)}))
    done = kvgauge(*words)
    assert done.code != 0 and "file_sha256" in done.err and done.err.count("\n") == 1
