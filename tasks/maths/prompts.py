"""Prompts for mathematical problems, by name; ``task.prompt`` may also be a text of its own."""

from __future__ import annotations

from collections.abc import Mapping

from harness.errors import ConfigError
from tasks.checks import short

SLOT = "{problem}"
PROMPTS: Mapping[str, str] = {
    # The sentence that DeepSeek-R1's and Qwen's model cards ask to be put behind a problem.
    "reason": SLOT + "\n\nPlease reason step by step, and put your final answer within \\boxed{}.",
    # run_math.py of https://github.com/Zefan-Cai/R-KV at d15c976 (Apache-2.0), without a chat template there.
    "rkv": "You are given a math problem.\n\nProblem: " + SLOT + "\n\n You need to solve the problem step by step. "
    "First, you need to provide the chain-of-thought, then provide the final answer.\n\n Provide the final answer in "
    "the format: Final answer:  \\boxed{}",
}


def template(prompt: object) -> str:
    """The text of ``task.prompt``, with ``{problem}`` where the problem goes.

    Raises:
        ConfigError: it is neither a name nor a text with one place for the problem.
    """
    if isinstance(prompt, str):
        text = PROMPTS.get(prompt, prompt)
        if text.count(SLOT) == 1:
            return text
    raise ConfigError(
        f"task.prompt={short(prompt)} has no one {SLOT} in it: use one of {', '.join(PROMPTS)}, or a text with {SLOT}"
    )
