"""A random little Llama in a GGUF file, and the file of the real one where it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from harness.folders import cache_folder

SMOLLM2 = cache_folder() / "SmolLM2-135M-Instruct.Q4_1.gguf"
needs_smollm2 = pytest.mark.skipif(not SMOLLM2.is_file(), reason=f"{SMOLLM2.name} is not there: make smollm2")
WIDTH, INNER, HEADS, KV_HEADS, LAYERS = 32, 64, 4, 2, 2
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def _letters() -> list[str]:
    """The 256 letters that byte-level tokenizers write bytes with."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def write(
    path: Path,
    *,
    family: str = "llama",
    leave_out: str = "",
    vocabulary: bool = True,
    more: Callable[[gguf.GGUFWriter], None] = lambda writer: None,
) -> Path:
    """Write the file.

    Args:
        path: where.
        family: its ``general.architecture``.
        leave_out: name of a tensor to leave out.
        vocabulary: whether it holds a tokenizer.
        more: writes metadata and tensors in addition.
    """
    tokens = ["<|none|>", "<|start|>", "<|end|>", *_letters(), "Ġt", "he"]
    writer = gguf.GGUFWriter(str(path), family)
    writer.add_name("little")
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    if vocabulary:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(tokens)
        writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
        writer.add_token_merges(["Ġ t", "h e"])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        writer.add_add_bos_token(False)
        writer.add_chat_template(TEMPLATE)
    more(writer)
    draw = np.random.default_rng(0)
    for name, shape in _shapes(len(tokens)).items():
        if name == leave_out:
            continue
        values: NDArray[np.float32] = (0.3 * draw.standard_normal(shape)).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, 1 + values)
        else:
            kind = gguf.GGMLQuantizationType.Q4_1
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _shapes(tokens: int) -> dict[str, tuple[int, ...]]:
    head = WIDTH // HEADS
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (tokens, WIDTH)}
    for layer in range(LAYERS):
        for part, shape in {
            "attn_norm": (WIDTH,),
            "attn_q": (HEADS * head, WIDTH),
            "attn_k": (KV_HEADS * head, WIDTH),
            "attn_v": (KV_HEADS * head, WIDTH),
            "attn_output": (WIDTH, HEADS * head),
            "ffn_norm": (WIDTH,),
            "ffn_gate": (INNER, WIDTH),
            "ffn_up": (INNER, WIDTH),
            "ffn_down": (WIDTH, INNER),
        }.items():
            shapes[f"blk.{layer}.{part}.weight"] = shape
    return shapes | {"output_norm.weight": (WIDTH,)}
