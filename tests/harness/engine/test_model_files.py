"""All that comes from a model's folder is foreign input: whatever is wrong with it is one line, and no traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from harness.engine.engine import Engine
from harness.engine.model_spec import ModelSpec
from harness.errors import KvgaugeError, ModelError
from harness.run.checkpoint import Checkpoint, read_checkpoint
from tests.conftest import ROOT

WRONG: tuple[Any, ...] = (None, "x", "", -1, 0, 1.5, 10**12, True, [], [1], ["x"], [[1]], {}, {"a": 1}, float("inf"))
WHOLE = ("", "[]", "3", "null", '{"a": ', "[" * 100_000, "\x00\ufffe")
FIELDS: dict[str, dict[str, Any]] = {
    "config.json": {},
    "generation_config.json": {
        "suppress_tokens": [1], "bad_words_ids": [[1]], "repetition_penalty": 1.1, "min_length": 3, "num_beams": 1,
        "sequence_bias": [[[1], 1.0]], "stop_strings": ["x"],
    },
    "tokenizer_config.json": {
        "chat_template": "x", "added_tokens_decoder": {}, "additional_special_tokens": ["<s>"], "add_bos_token": True,
    },
    "tokenizer.json": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("fuzzed") / "model"
    shutil.copytree(ROOT / "models/tiny", folder)
    yield folder
    shutil.rmtree(folder)


def places(values: Any, before: Sequence[str | int] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where a value can be replaced: fields of objects, three deep, and the first entry of a list of objects."""
    keys: list[Any] = list(values) if isinstance(values, dict) else [0] if isinstance(values, list) and values else []
    for key in keys:
        yield (*before, key)
        if len(before) < 2 and key not in ("vocab", "merges"):
            yield from places(values[key], (*before, key))


def replaced(values: dict[str, Any], place: Sequence[str | int], value: Any) -> str:
    changed = inner = json.loads(json.dumps(values))
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return json.dumps(changed)


def contents(name: str) -> Iterator[tuple[str, str]]:
    """Wrong contents of a file, each with what is wrong."""
    values = json.loads((ROOT / "models/tiny" / name).read_text()) | FIELDS[name]
    for place in places(values):
        for value in WRONG:
            yield f"{'.'.join(map(str, place))}={value!r}", replaced(values, place, value)
    for whole in WHOLE:
        yield f"all of it {whole[:10]!r}", whole


def use(folder: Path) -> None:
    """Everything that a run takes from the files; the weights only if the rest is good."""
    spec = ModelSpec(str(folder), device="cpu")
    checkpoint: Checkpoint = read_checkpoint(spec, needs_tokenizer=True)
    assert checkpoint.tokenizer is not None
    checkpoint.tokenizer.decode(checkpoint.tokenizer.encode("Some text.\n"), skip_special_tokens=True)
    Engine.load(spec, config=checkpoint.config)


@pytest.mark.parametrize(
    ("name", "place", "value", "says"),
    [
        ("config.json", ("eos_token_id",), "x", "field 'eos_token_id'"),
        ("config.json", ("num_key_value_heads",), 3, "num_key_value_heads=3, which is not a divisor of its"),
        ("config.json", ("hidden_size",), [], "mend or fetch its config.json"),
        ("generation_config.json", ("eos_token_id",), [[1]], "eos_token_id=[[1]], which is not a token id or a list"),
        ("generation_config.json", ("suppress_tokens",), 5, "has a generation_config.json that cannot be read"),
        ("tokenizer.json", ("version",), 7, "has no usable tokenizer"),
        ("tokenizer.json", ("post_processor", "special_tokens"), {}, "has no usable tokenizer"),
        ("tokenizer_config.json", ("bos_token",), 5, "has no usable tokenizer"),
    ],
)
def test_a_wrong_value_in_a_models_file_names_the_file(
    name: str, place: tuple[str, ...], value: object, says: str, model: Path
) -> None:
    kept = (model / name).read_bytes()
    try:
        (model / name).write_text(replaced(json.loads(kept), place, value))
        with pytest.raises(ModelError) as caught:
            use(model)
    finally:
        (model / name).write_bytes(kept)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIELDS)
def test_no_wrong_content_of_a_models_file_is_a_traceback(name: str, model: Path) -> None:
    kept, wrong = (model / name).read_bytes(), []
    try:
        for what, text in islice(contents(name), 0, None, 3):  # all of them take a minute
            (model / name).write_text(text)
            try:
                use(model)
            except KvgaugeError as error:
                if "\n" in str(error) or ": " not in str(error):
                    wrong.append((what, str(error)))
            except BaseException as error:  # a panic of tokenizers is no Exception
                wrong.append((what, f"{type(error).__name__}: {error}"))
    finally:
        (model / name).write_bytes(kept)
    assert wrong == []
