"""The protocols behind published LongBench numbers, which differ in all but the prompts and the scores.

Facts: ``pred.py`` of https://github.com/THUDM/LongBench at c5ea10b (MIT); ``run_longbench.py`` of
https://github.com/Zefan-Cai/KVCache-Factory, today's and at 485af3c and before (MIT).

Differs:
    - The chat template is the tokenizer's own, around the unchanged prompt. Published code has templates written by
      hand and chosen by the model's name; for Llama-3 the text is the same. For Llama-2, LongBench has
      ``[INST]{prompt}[/INST]`` where the tokenizer's template has spaces.
    - KVCache-Factory never wraps Mistral's prompts: use ``chat=false`` for that. It wraps those of paths with "llama2"
      on every dataset before truncation, which is not offered here.
    - ``longbench`` ends samsum at any of the model's end tokens or a line break; the published code at the tokenizer's
      one end token or a line break.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.longbench.templates import TEMPLATES

_ALL = frozenset(TEMPLATES)
_SAMSUM = frozenset({"samsum"})


@dataclass(frozen=True)
class Protocol:
    """One way to run the datasets.

    Attributes:
        max_prompt_tokens: limit beyond which prompts lose their middle; special tokens count, a chat template does
            not. None if it depends on the model.
        chat: whether prompts, after truncation, are put into the tokenizer's chat template, except for ``NO_CHAT``.
        all_end_tokens: whether each of the model's end tokens ends a generation, or only the tokenizer's.
        newline_ends: datasets for which a line break ends a generation, too.
        one_token_at_least: datasets for which the first token cannot be an end token.
    """

    max_prompt_tokens: int | None
    chat: bool
    all_end_tokens: bool
    newline_ends: frozenset[str]
    one_token_at_least: frozenset[str]


PROTOCOLS: Mapping[str, Protocol] = {
    # LongBench itself, with its limits of 3500 for models of 4k tokens, 7500 of 8k, 15500 of 16k, 31500 of 32k.
    "longbench": Protocol(None, chat=True, all_end_tokens=True, newline_ends=_SAMSUM, one_token_at_least=_SAMSUM),
    # KVCache-Factory today, with its limit for Llama-3 (it has 3950 for Llama-2, 31500 for Mistral).
    "kvcache_factory": Protocol(7500, chat=True, all_end_tokens=True, newline_ends=_SAMSUM, one_token_at_least=_ALL),
    # The PyramidKV tables: no chat template for Llama-3 or Mistral, 7950 tokens for Llama-3 (the others as above), one
    # end token. Which token that is depends on the tokenizer's files, which changed for Llama-3 after its release.
    "paper": Protocol(7950, chat=False, all_end_tokens=False, newline_ends=frozenset(), one_token_at_least=_ALL),
}
