"""The training of ``models/tiny`` from scratch.

    python models/train_tiny.py

Its settings are ``conf/train/tiny.yaml``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from models.recipe.card import write_card
from models.recipe.evaluate import evaluate, trials
from models.recipe.sequences import make_pools
from models.recipe.tokenizer import train_tokenizer
from models.recipe.train import Stage, State, make_model, train

ROOT = Path(__file__).resolve().parents[1]
OmegaConf.register_new_resolver("root", lambda: str(ROOT), replace=True)


@hydra.main(version_base=None, config_path="../conf/train", config_name="tiny")
def main(config: DictConfig) -> None:
    """Train, or resume training; then write weights, tokenizer, evaluation and card."""
    torch.set_num_threads(config.threads)
    out, work = Path(config.out), Path(config.work)
    tokenizer = train_tokenizer(config.model.vocabulary, config.model.positions, config.seed)
    model = make_model(config.model, tokenizer, config.seed).to(config.device)
    stages = [Stage(**stage) for stage in OmegaConf.to_container(config.stages, resolve=True)]  # type: ignore[union-attr, arg-type]
    pools = make_pools(tokenizer, config.seed, config.data.characters)
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as progress:
        bars = [progress.add_task(f"{stage.tokens} tokens", total=stage.steps, start=False) for stage in stages]

        def show(state: State, loss: float) -> None:
            progress.start_task(bars[state.stage])
            text = f"{stages[state.stage].tokens} tokens, loss {loss:.2f}, right {state.accuracy:.1%}"
            progress.update(bars[state.stage], completed=state.step_of_stage, description=text)

        train(model, pools, stages, config.optimizer, config.seed, work, show)
    model.cpu().save_pretrained(out)
    tokenizer.save_pretrained(out)
    outcomes = []
    for trial in trials(None if config.essays is None else Path(config.essays)) if config.evaluate else ():
        outcomes.append(evaluate(out, trial))
        print(f"{trial.name}: {outcomes[-1].mean:.1f} (n={outcomes[-1].count})", flush=True)
    write_card(out, config, model, work / "history.csv", outcomes, torch.__version__)
    print(out / "README.md")


if __name__ == "__main__":
    main()
