"""The training loop: stages of sequence lengths, one checkpoint, and a line of history every few steps."""

from __future__ import annotations

import csv
import math
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from models.recipe.sequences import Pools, batch

_WINDOW = 50  # number of steps that the running accuracy covers
_WRITE_EVERY, _SAVE_EVERY = 10, 50
COLUMNS = ("stage", "tokens", "step", "trained_tokens", "loss", "accuracy", "learning_rate", "seconds")


@dataclass(frozen=True)
class Stage:
    """Sequences of one length. See ``conf/train/tiny.yaml``."""

    tokens: int
    batch_tokens: int
    steps: int
    until: float
    rate: float
    decay: bool
    first_token_weight: float
    mixture: Mapping[str, float]


@dataclass
class State:
    """The state of the training: everything that a checkpoint holds besides weights and optimizer."""

    stage: int = 0
    step_of_stage: int = 0
    step: int = 0
    trained_tokens: int = 0
    seconds: float = 0.0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))

    @property
    def accuracy(self) -> float:
        """Share of answer tokens that are right, over the last steps, 0-1."""
        return sum(self.recent) / len(self.recent) if self.recent else 0.0


def make_model(config: Any, tokenizer: PreTrainedTokenizerBase, seed: int) -> LlamaForCausalLM:
    """A Llama with seeded random weights, of the shape in ``model`` of ``conf/train/*.yaml``."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=config.mlp,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            max_position_embeddings=config.positions,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            tie_word_embeddings=True,
        )
    )


def train(
    model: LlamaForCausalLM,
    pools: Pools,
    stages: list[Stage],
    optimizer_config: Any,
    seed: int,
    work: Path,
    report: Callable[[State, float], None],
) -> State:
    """Train to the end of the last stage, from the checkpoint in ``work`` if there is one.

    Args:
        model: the model, on its device.
        pools: what sequences are written from.
        stages: the stages, in order.
        optimizer_config: ``optimizer`` of ``conf/train/*.yaml``.
        seed: seed of the sequences.
        work: the folder of the checkpoint and of ``history.csv``, which has the curves.
        report: called after every step with the state and the loss.

    Returns:
        The last state.
    """
    device = model.device
    rates, warmup = optimizer_config.learning_rate, optimizer_config.warmup_steps
    optimizer = torch.optim.AdamW(
        model.parameters(), rates, betas=tuple(optimizer_config.betas), weight_decay=optimizer_config.weight_decay
    )
    work.mkdir(parents=True, exist_ok=True)
    checkpoint, history = work / "checkpoint.pt", work / "history.csv"
    state = _load(checkpoint, model, optimizer) if checkpoint.is_file() else State()
    _cut_history(history, state.step)
    while state.stage < len(stages):
        stage = stages[state.stage]
        begun = time.monotonic()
        rate = rates * stage.rate * min(1.0, (state.step + 1) / warmup)
        if stage.decay:
            rate *= 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * state.step_of_stage / stage.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        ids, asked = batch(pools, [seed, state.step], stage.tokens, stage.batch_tokens // stage.tokens, stage.mixture)
        loss, accuracy = _step(
            model, torch.from_numpy(ids).to(device), torch.from_numpy(asked).to(device), stage.first_token_weight
        )
        torch.nn.utils.clip_grad_norm_(model.parameters(), optimizer_config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

        state.recent.append(accuracy)
        state.step += 1
        state.step_of_stage += 1
        state.trained_tokens += ids.size
        state.seconds += time.monotonic() - begun
        done = state.step_of_stage >= stage.steps or (len(state.recent) == _WINDOW and state.accuracy >= stage.until)
        if state.step % _WRITE_EVERY == 0 or done:
            _write(
                history,
                (
                    state.stage,
                    stage.tokens,
                    state.step,
                    state.trained_tokens,
                    loss,
                    state.accuracy,
                    rate,
                    state.seconds,
                ),
            )
        report(state, loss)
        if done:
            state.stage, state.step_of_stage = state.stage + 1, 0
            state.recent.clear()
            _save(checkpoint, model, optimizer, state)
        elif state.step % _SAVE_EVERY == 0:
            _save(checkpoint, model, optimizer, state)
    return state


def _step(model: LlamaForCausalLM, ids: Tensor, asked: Tensor, first_token_weight: float) -> tuple[float, float]:
    """Compute the gradients of one batch.

    The first token of an answer has a weight of its own: it must be searched for, and the others follow from it.

    Returns:
        The loss, and the share of asked tokens that are right.
    """
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    wanted = asked[:, 1:]
    logits = model.lm_head(hidden[wanted])
    targets = ids[:, 1:][wanted]
    weights = torch.where(asked[:, :-1], 1.0, first_token_weight)[wanted]
    loss = (functional.cross_entropy(logits, targets, reduction="none") * weights).sum() / weights.sum()
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach()), float((logits.detach().argmax(-1) == targets).float().mean())


def _save(path: Path, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, state: State) -> None:
    new = path.with_suffix(".new")
    torch.save(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "state": vars(state) | {"recent": list(state.recent)},
        },
        new,
    )
    os.replace(new, path)


def _load(path: Path, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer) -> State:
    held = torch.load(path, map_location=model.device, weights_only=True)
    model.load_state_dict(held["model"])
    optimizer.load_state_dict(held["optimizer"])
    return State(**held["state"] | {"recent": deque(held["state"]["recent"], maxlen=_WINDOW)})


def _write(path: Path, row: tuple[float, ...]) -> None:
    begin = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if begin:
            writer.writerow(COLUMNS)
        writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in row])


def _cut_history(path: Path, step: int) -> None:
    """Remove the lines that were written after the checkpoint."""
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if line.startswith("stage") or int(line.split(",")[2]) <= step))
