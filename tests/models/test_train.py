"""Training of the reference model: seeded, resumable, and it learns."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from transformers import LlamaForCausalLM

from models import train_tiny
from models.recipe.sequences import KINDS, make_pools
from models.recipe.tokenizer import train_tokenizer
from models.recipe.train import COLUMNS, Stage, State, make_model, train

SIZE = SimpleNamespace(width=32, mlp=64, layers=2, heads=2, kv_heads=1, positions=256, rope_theta=1e4)
OPTIMIZER = SimpleNamespace(learning_rate=3e-3, betas=(0.9, 0.98), weight_decay=0.01, clip=1.0, warmup_steps=5)
MIXTURE = {"echo": 0.5, "fact": 0.3, "label": 0.2}
STAGES = [Stage(32, 256, 60, 1.0, 1.0, False, 3.0, MIXTURE), Stage(64, 256, 55, 1.0, 0.5, True, 3.0, MIXTURE)]


class Stopped(Exception):
    pass


def run(work: Path, stop_at: int | None = None) -> dict[str, torch.Tensor]:
    tokenizer = train_tokenizer(400, 256, 1)
    model = make_model(SIZE, tokenizer, 1)

    def report(state: State, loss: float) -> None:
        if state.step == stop_at:
            raise Stopped

    train(model, make_pools(tokenizer, 1, 20_000), STAGES, OPTIMIZER, 1, work, report)
    return model.state_dict()


@dataclass(frozen=True)
class Trained:
    """A training that went to its end: its weights, and the folder it worked in."""

    weights: dict[str, torch.Tensor]
    work: Path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    work = tmp_path_factory.mktemp("trained")
    return Trained(run(work), work)


@pytest.mark.slow
def test_a_stopped_training_goes_on_to_the_same_weights(trained: Trained, tmp_path: Path) -> None:
    for stop in (57, 103):
        with pytest.raises(Stopped):
            run(tmp_path / "parts", stop)
    parts = run(tmp_path / "parts")
    assert all(torch.equal(weights, parts[name]) for name, weights in trained.weights.items())
    histories = [list(csv.reader((work / "history.csv").open())) for work in (trained.work, tmp_path / "parts")]
    assert tuple(histories[0][0]) == COLUMNS
    assert [row[:6] for row in histories[0]] == [row[:6] for row in histories[1]], "no step is there twice"
    assert int(histories[0][-1][2]) == 115


def test_a_finished_training_is_not_begun_again(trained: Trained) -> None:
    again = run(trained.work, stop_at=1)
    assert all(torch.equal(weights, again[name]) for name, weights in trained.weights.items())


@pytest.mark.slow
def test_the_command_ends_with_weights_and_a_card_without_an_evaluation_too(tmp_path: Path) -> None:
    stage = (
        "{tokens:64,batch_tokens:256,steps:20,until:1.0,rate:1.0,decay:true,first_token_weight:3.0,"
        "mixture:{echo:0.5,fact:0.5}}"
    )
    size = ("model.layers=2", "model.width=32", "model.mlp=64", "model.vocabulary=400", "data.characters=20000")
    words = (*size, f"stages=[{stage}]", "evaluate=false", f"out={tmp_path / 'out'}", f"work={tmp_path / 'work'}")
    subprocess.run([sys.executable, str(train_tiny.ROOT / "models/train_tiny.py"), *words], check=True)
    assert LlamaForCausalLM.from_pretrained(tmp_path / "out").num_parameters() < 100_000
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "20 steps" in card and "table" not in card and "Not measured: trained with `evaluate=false`." in card
    assert (tmp_path / "out/curves.png").is_file()


def test_loss_falls(trained: Trained) -> None:
    losses = [float(row["loss"]) for row in csv.DictReader((trained.work / "history.csv").open())]
    assert sum(losses[-3:]) < sum(losses[:3])


def test_the_settings_of_the_command_are_whole() -> None:
    with initialize_config_dir(str(train_tiny.ROOT / "conf/train"), version_base=None):
        settings = OmegaConf.to_container(compose("tiny"), resolve=True)
    assert isinstance(settings, dict)
    assert settings["out"] == f"{train_tiny.ROOT}/models/tiny"
    for stage in settings["stages"]:
        assert set(Stage(**stage).mixture) <= set(KINDS)
        assert sum(stage["mixture"].values()) == pytest.approx(1.0)
