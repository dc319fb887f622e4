"""The shipped reference model: where it came from, and that it finds what it is asked for."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf
from safetensors import safe_open
from transformers import AutoTokenizer

from models.recipe import labels
from models.recipe.card import recipe_hash
from models.recipe.tokenizer import train_tokenizer
from tests.conftest import Command

ROOT = Path(__file__).parents[2]
TINY = ROOT / "models/tiny"
CARD = (TINY / "README.md").read_text(encoding="utf-8")


def config() -> object:
    OmegaConf.register_new_resolver("root", lambda *_: "", replace=True)
    return OmegaConf.load(ROOT / "conf/train/tiny.yaml")


def test_the_card_names_the_recipe_that_is_in_the_repository() -> None:
    made = config()
    assert f"`{recipe_hash(made)}`" in CARD  # type: ignore[arg-type]
    assert f"seed {made.seed}," in CARD  # type: ignore[attr-defined]


def test_the_tokenizer_is_the_recipes() -> None:
    made = config()
    again = train_tokenizer(made.model.vocabulary, made.model.positions, made.seed)  # type: ignore[attr-defined]
    shipped = AutoTokenizer.from_pretrained(TINY)
    assert shipped.get_vocab() == again.get_vocab()
    text = "The best thing to do in San Francisco is eat a sandwich — naïve 12345.\n"
    assert shipped.encode(text) == again.encode(text)


def test_it_is_small_and_safe() -> None:
    files = [path for path in TINY.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md", ".png"}
    with safe_open(TINY / "model.safetensors", "pt") as weights:
        shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
    parameters = sum(int(pd.Series(shape).prod()) for shape in shapes.values())
    assert parameters < 5e6
    assert f"{parameters:,} parameters" in CARD
    assert len({re.search(r"layers\.(\d+)\.", name)[1] for name in shapes if "layers." in name}) >= 8  # type: ignore[index]


def test_the_labels_are_the_generators(tmp_path: Path) -> None:
    labels.write(tmp_path / "data.zip")
    assert (tmp_path / "data.zip").read_bytes() == (ROOT / "models/labels/data.zip").read_bytes()


def test_the_full_cache_finds_the_needle_at_every_depth_and_a_stream_loses_it(kvgauge: Command, tmp_path: Path) -> None:
    words = (
        "task=needle",
        "task.lengths=[500]",
        "task.depths=[{count:5}]",
        f"results_dir={tmp_path}",
    )
    assert kvgauge(*words, "method=[fullkv,streamingllm]", "budget=64").code == 0
    scores = pd.read_csv(tmp_path / "report/tiny/needle/table.csv").set_index("method")["score"]
    assert scores["fullkv"] == 100
    assert scores["streamingllm"] <= 40
    assert "score: contains answer (0-100)" in (tmp_path / "report/tiny/needle/table.md").read_text()


@pytest.mark.slow
def test_the_full_cache_finds_unseen_numbers(kvgauge: Command, tmp_path: Path) -> None:
    words = ("task=needle_magic", "task.lengths=[1000]", "task.depths=[{count:5}]", "seed=7", f"results_dir={tmp_path}")
    assert kvgauge(*words, "method=fullkv").code == 0
    assert pd.read_csv(tmp_path / "report/tiny/needle_magic/table.csv")["score"].item() == 100


@pytest.mark.slow
def test_the_full_cache_tells_the_asked_number_from_three_others(kvgauge: Command, tmp_path: Path) -> None:
    words = (
        "task=needle_many",
        "task.distractors=3",
        "task.lengths=[1000]",
        "task.depths=[{count:5}]",
        "task.samples=4",
    )
    assert kvgauge(*words, "task.max_new_tokens=16", "method=fullkv", f"results_dir={tmp_path}").code == 0
    assert pd.read_csv(tmp_path / "report/tiny/needle_many/table.csv")["score"].item() >= 55  # guessing gives 25


@pytest.mark.slow
def test_the_full_cache_reads_labels_from_examples(kvgauge: Command, tmp_path: Path) -> None:
    assert kvgauge("task=labels", "limit=10", "method=fullkv", f"results_dir={tmp_path}").code == 0
    assert pd.read_csv(tmp_path / "report/tiny/labels-trec/table.csv")["score"].item() >= 80
