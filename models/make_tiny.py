"""Makes ``models/tiny``: a small Llama with seeded random weights and a byte-level tokenizer of the built-in haystack.

    python models/make_tiny.py [folder]

Its weights have never seen a text: it stands in until a trained model ships, so that every command runs on any machine.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import torch  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402

from tasks.haystack import builtin_text  # noqa: E402

SEED = 0
VOCABULARY = 1024


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE, so that any text can be read; ``<s>`` begins a prompt, ``</s>`` ends a generation."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([builtin_text()], trainer)
    begin = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", model_max_length=8192)


def make_model() -> LlamaForCausalLM:
    """Eight layers, 8 query heads over 4 kv heads; weights wide enough for attention to prefer some tokens."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=8192,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=True,
    )
    torch.manual_seed(SEED)
    return LlamaForCausalLM(config)


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "tiny"
    make_model().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    print(folder)
