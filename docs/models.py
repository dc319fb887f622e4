"""The families of models, read from what the code says of transformers' own configurations: ``make rooms`` writes them.

python docs/models.py           writes both tables into docs/models.md
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig

from harness.engine.attention import refuse_config, refuse_uneven
from harness.engine.layer_forms import layer_windows, why_not_plain
from harness.engine.model_spec import text_model
from harness.engine.row_lengths import scaled_beyond
from harness.errors import ModelError

PAGE = Path(__file__).with_name("models.md")
LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48, "rope_theta": 1e4}
FAMILIES: dict[str, dict[str, Any]] = {
    **{
        name: {} for name in ("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3")
    },
    **{name: {} for name in ("phi3", "olmo2", "olmo3", "granite", "granitemoe", "glm4", "smollm3", "cohere2")},
    **{name: {} for name in ("exaone4", "gpt_oss", "llama4")},
    "qwen2 with its window": {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 28},
    "phi3 with longrope": {"rope_parameters": LONGROPE | {"original_max_position_embeddings": 4096}},
    "llama with dynamic": {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
    **{name: {} for name in ("deepseek_v3", "gemma3n", "gemma4", "qwen3_next", "falcon_h1", "jamba", "lfm2")},
    **{"t5": {}},
}
CHANGES = {"lfm2": {"layer_types": ["conv", "full_attention"] * 8, "num_hidden_layers": 16}}
SINKS = ("gpt_oss",)
"""Families whose weights have sinks, which no configuration says."""


def config_of(name: str) -> PretrainedConfig:
    """The configuration that transformers has for a family, or for the text model in it."""
    family = name.split(" ")[0]
    made: PretrainedConfig = CONFIG_MAPPING[family](**FAMILIES[name], **CHANGES.get(family, {}))
    return text_model(made)


def exact(name: str, config: PretrainedConfig) -> list[str]:
    """What of a model is computed exactly and not compressed, or is more than an ordinary softmax."""
    windows = Counter(window for window in layer_windows(config) if window is not None)
    parts = [f"{count} layers with a {window.kind} window of {window.size:,}" for window, count in windows.items()]
    if (softcap := getattr(config, "attn_logit_softcapping", None)) is not None:
        parts.append(f"logits capped at {softcap:g}")
    if name in SINKS:
        parts.append("sinks in the softmax")
    rotated = getattr(config, "no_rope_layers", None) or [True]
    if not all(rotated):
        parts.append(f"{rotated.count(0)} layers without positions")
    if (scaled := scaled_beyond(config)) is not None:
        parts.append(f"angles by the length of each row, other ones beyond {scaled[1]:,}")
    return parts


def tables() -> str:
    """The families that run, and those that are refused, as Markdown."""
    plain: list[str] = []
    runs: list[str] = []
    refused = ["| family | refused, as it has |", "|---|---|"]
    for name in FAMILIES:
        config = config_of(name)
        try:
            refuse_uneven(config, name)
            refuse_config(config, name)
        except ModelError as error:
            said = str(error).partition(" has ")[2].partition(": use a family")[0].partition("; use a ")[0]
            refused.append(f"| {name} | {said} |")
            continue
        windows = layer_windows(config)
        full = windows.count(None)
        compressed = f"{full} of {len(windows)} layers" if full < len(windows) else "all layers"
        if not (besides := exact(name, config)):
            plain.append(name)
            continue
        kernels = "torch" if why_not_plain(config) else "own or torch"
        runs.append(f"| {name} | {compressed} | {'; '.join(besides)} | {kernels} |")
    head = ["| family | compressed | exact, too | kernels |", "|---|---|---|---|"]
    return "\n".join([*head, f"| {', '.join(plain)} | all layers | – | own or torch |", *runs, "", *refused])


def written(page: str) -> str:
    """The page with the tables that the code says."""
    before, _, rest = page.partition("<!-- families -->\n")
    _, end, after = rest.partition("<!-- end of families -->")
    return f"{before}<!-- families -->\n{tables()}\n{end}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
