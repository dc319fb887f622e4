"""The tokenizer of ``models/tiny``: a byte-level BPE of the training texts, which can encode any text."""

from __future__ import annotations

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from models.recipe.text import FACTS, HEADS, JOINERS, LABELS, OPENERS, invented_text, town_text

BEGIN, END = "<s>", "</s>"


def train_tokenizer(vocabulary: int, positions: int, seed: int) -> PreTrainedTokenizerFast:
    """Train the tokenizer.

    Every digit is a token of its own. ``<s>`` begins a prompt, and ``</s>`` ends a generation.

    Args:
        vocabulary: number of tokens.
        positions: largest number of positions of the model.
        seed: seed of the texts.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[BEGIN, END], initial_alphabet=alphabet, show_progress=False
    )
    wordings = [part for group in (*FACTS, *LABELS, HEADS, OPENERS, JOINERS) for part in group] * 50
    texts = [town_text(seed + 1, 300_000), invented_text(np.random.default_rng(seed), 300_000), *wordings]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, model_max_length=positions
    )
