# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Does attention narrow layer by layer?
#
# PyramidKV (arXiv:2406.02069) gives low layers more cache than high ones, because the authors saw attention spread over
# many tokens in low layers and gather on few in high ones: *pyramidal information funneling*. This notebook measures
# that for any model: how many tokens hold 90 % of a query's attention, the entropy of the attention, and how much of it
# goes to the first tokens and to the most recent ones, in every layer. Beside it stands what PyramidKV would keep.

# %%
import os
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import torch
from matplotlib.figure import Figure

import kvgauge
from harness.compression.allocation import Shape
from harness.compression.attention_weights import Softmax, attention_rows, causal_attention
from harness.config.build import composed
from harness.engine.attention import ENGINE
from harness.engine.layer_forms import LayerForm, layer_forms
from methods.pyramidkv import PyramidKV
from tasks.needle.haystack import builtin_text

ROOT = Path.cwd() if Path("conf").is_dir() else Path.cwd().parent
MODEL = os.environ.get("FUNNEL_MODEL", str(ROOT / "models/tiny"))  # a local folder, a GGUF file, or a hub id
TOKENS = int(os.environ.get("FUNNEL_TOKENS", "2000"))
FIGURES = Path(os.environ.get("FIGURES", ROOT / "results/notebooks"))
SINKS, RECENT, COVERED = 4, 32, 0.9
QUERIES = 64  # the last ones of the prompt

# %% [markdown]
# kvgauge runs every layer's attention through an engine of its own, so an engine that looks instead of compressing is
# all it takes. It computes the same attention as always and keeps four numbers of the last queries' weights.


# %%
@dataclass
class Looking:
    """Attention as ever, and what the last queries look at.

    Attributes:
        forms: how each layer attends.
        positions: of the prompt's tokens.
        seen: one row per layer: tokens that hold 90 %, entropy in bits, shares of the first and of the recent tokens.
    """

    forms: tuple[LayerForm, ...]
    positions: torch.Tensor
    seen: list[list[float]] = field(default_factory=list)

    def attend(self, layer, queries, keys, values, scaling):
        ((_, _, weights),) = attention_rows(queries[0, :, -QUERIES:], keys[0], Softmax(scaling), block_bytes=2**62)
        mass = weights.float().sort(-1, descending=True).values.cumsum(-1)
        entropy = -(weights * weights.clamp_min(1e-12).log2()).sum(-1)
        self.seen.append(
            [
                float((mass < COVERED).sum(-1).float().mean()) + 1,
                float(entropy.mean()),
                float(weights[..., :SINKS].sum(-1).mean()),
                float(weights[..., -RECENT:].sum(-1).mean()),
            ]
        )
        return causal_attention(queries[0], keys[0], values[0], Softmax(scaling))[None].transpose(1, 2).contiguous()


engine = kvgauge.Engine.load(MODEL)
model, tokenizer = engine.model, engine.spec.tokenizer()

question = "\nThe best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on a sunny day.\n"
ids = tokenizer.encode(
    builtin_text()[: 8 * TOKENS], verbose=False
)  # with the token that begins a prompt, where there is one
planted, end = (
    tokenizer.encode(text, add_special_tokens=False)
    for text in (question, "\nThe best thing to do in San Francisco is")
)
half = (TOKENS - len(planted) - len(end)) // 2
prompt = torch.tensor([ids[:half] + planted + ids[half : 2 * half] + end], device=model.device)

looking = Looking(layer_forms(model), torch.arange(prompt.shape[1], device=model.device)[None])
with torch.inference_mode():
    model(prompt, use_cache=False, past_key_values=None, logits_to_keep=1, **{ENGINE: looking})

# %% [markdown]
# ## What each layer looks at

# %%
covered, entropy, first, recent = zip(*looking.seen, strict=True)
layers = range(len(covered))
budget = 128
knobs = {key: value for key, value in composed("method=pyramidkv").method.pyramidkv.items() if key != "_target_"}
pyramidkv = PyramidKV(**knobs)
kept = pyramidkv.allocation.counts(budget, Shape(prompt.shape[1], len(covered), window=pyramidkv.window), ())

figure = Figure(figsize=(10, 3.4), dpi=130, layout="constrained")
left, middle, right = figure.subplots(1, 3)
left.plot(layers, covered, "o-", label=f"tokens that hold {COVERED:.0%}")
left.plot(layers, kept, "s--", label=f"PyramidKV keeps at budget {budget}")
left.set_ylabel("tokens of one head")
left.set_ylim(top=1.25 * left.get_ylim()[1])  # room for the legend
left.legend(fontsize=7, loc="upper right")
middle.plot(layers, entropy, "o-", color="tab:green")
middle.set_ylabel("entropy of a query's attention, bits")
right.bar(layers, first, label=f"first {SINKS} tokens")
right.bar(layers, recent, bottom=first, label=f"last {RECENT} tokens")
right.set_ylabel("share of the attention")
right.set_ylim(0, 1)
right.legend(fontsize=7)
for axes in (left, middle, right):
    axes.set_xlabel("layer")
figure.suptitle(f"{engine.name}, {prompt.shape[1]} tokens, last {QUERIES} queries, mean over heads", fontsize=9)
FIGURES.mkdir(parents=True, exist_ok=True)
figure.savefig(FIGURES / "information_funnel.png")
figure

# %%
falls = sum(low > high for low, high in pairwise(covered))
third = max(1, len(covered) // 3)
print(f"layer: tokens that hold {COVERED:.0%}, entropy in bits, share of the first {SINKS}, share of the last {RECENT}")
for layer, row in zip(layers, looking.seen, strict=True):
    print(f"{layer:5d}: {row[0]:7.1f} {row[1]:6.2f} {row[2]:6.1%} {row[3]:6.1%}")
for name, part in (("lower", slice(third)), ("middle", slice(third, -third)), ("upper", slice(-third, None))):
    rows = looking.seen[part] or [looking.seen[0]]
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    print(f"{name:>6}: {means[0]:6.1f} {means[1]:6.2f} {means[2]:6.1%} {means[3]:6.1%}")
print(f"From one layer to the next attention narrows {falls} times of {len(covered) - 1}.")
print(FIGURES / "information_funnel.png")
