"""Needle in a haystack: can the model still quote one sentence from a long text, by length of the text and depth of the sentence?

The test is Greg Kamradt's (https://github.com/gkamradt/LLMTest_NeedleInAHaystack, MIT). How a context is built and
scored here follows the PyramidKV experiments, so that numbers can be held against theirs: ``run_needle_in_haystack.py``
and the figure script of https://github.com/Zefan-Cai/KVCache-Factory at c97f9d7 (MIT). Needle, question, answers and
prompt are templates, so one class also serves the magic numbers of RULER's niah_single
(https://github.com/NVIDIA/RULER, Apache-2.0).

Differs:
    - A context of length L comes from no more of the haystack than L needs, so it does not depend on the other lengths
    asked for.
    - ``period_tokens: null`` also takes the period as it is written after a word. That is [13] for Llama-3, [29889,
    869] for Llama-2
      and [842, 28723] for Mistral, the lists of the published code, without naming a model.
    - A haystack in which no sentence ends is refused; there the published code puts the needle at depth 0 whatever was
    asked.
    - Magic numbers: own word list for the keys, and the needle goes in by the sentence rule above instead of RULER's.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError
from harness.task import Example, Metric
from tasks.checks import is_list, is_whole, short, whole
from tasks.needle.context import decode, encode, haystack_tokens, insertion_point, read_haystack
from tasks.needle.grid import expand_depths, expand_lengths
from tasks.needle.words import MOST, keys_and_values

if TYPE_CHECKING:
    from rouge_score import rouge_scorer
    from transformers import PreTrainedTokenizerBase

METRICS = (
    Metric("word_overlap", "word overlap", 1.0),
    Metric("rouge1_x10", "ROUGE-1 F x10", 10.0),
    Metric("contains_answer", "contains answer", 1.0),
)


@dataclass(frozen=True)
class Needle:
    """A grid of lengths and depths, one needle in each context. Every default is in ``conf/task/needle*.yaml``.

    Templates may hold ``{key}`` and ``{value}``: two words and a 7-digit number, drawn for every example from ``seed``,
    its length, its depth and its sample, whatever else is asked for.

    Attributes:
        name: label of the results.
        needle: template of the hidden text, inserted as it is (it brings its own line breaks or spaces).
        question: template of the question.
        answers: templates of what a right response holds, one or more.
        prompt: template with ``{context}`` and, usually, ``{question}``.
        haystack: ``builtin``, or a folder whose ``*.txt`` files (UTF-8) are joined in the order of their names.
        lengths: context lengths in tokens, ``reserve_tokens`` included; entries are integers or ``{from, to, step}``
            (``to`` included).
        depths: percent of the context before the needle, 0-100; entries are numbers or ``{count: N}``, N whole percents
            from 0 to 100.
        samples: examples per cell, 1 or more; above 1 only where the templates are drawn.
        distractors: other needles in the same context, each with its own key and value, at depths drawn for each; 0 or
            more, and above 0 only where the needle's template holds ``{key}``.
        reserve_tokens: tokens of a length left free for prompt and response.
        period_tokens: ids that end a sentence, or None for the tokenizer's own.
        seed: of ``{key}`` and ``{value}``.
        max_new_tokens: generated tokens at most.
        min_new_tokens: stop tokens are impossible before this many.
        stop_at_newline: end a generation at the newline token too.
        show: the headline metric: ``word_overlap``, ``rouge1_x10`` or ``contains_answer``.
    """

    name: str
    needle: str
    question: str
    answers: Sequence[str]
    prompt: str
    haystack: str
    lengths: Sequence[int | Mapping[str, int]] | Mapping[str, int] | int
    depths: Sequence[float | Mapping[str, int]] | Mapping[str, int] | float
    samples: int
    distractors: int
    reserve_tokens: int
    period_tokens: Sequence[int] | None
    seed: int
    max_new_tokens: int
    min_new_tokens: int
    stop_at_newline: bool
    show: str

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """All three, the one to ``show`` first.

        Raises:
            ConfigError: ``show`` is none of them.
        """
        names = [metric.name for metric in METRICS]
        if self.show not in names:
            raise ConfigError(
                f"task.show={short(self.show)} is not a metric of {self.name}: use one of {', '.join(names)}"
            )
        return tuple(sorted(METRICS, key=lambda metric: metric.name != self.show))

    @property
    def scoring_knobs(self) -> frozenset[str]:
        """``show``."""
        return frozenset({"show"})

    def score_settings(self) -> Mapping[str, Any]:
        """None: all three metrics are always there."""
        return {}

    @property
    def needs_tokenizer(self) -> bool:
        """True: lengths are counted in the model's tokens."""
        return True

    @property
    def heatmap_axes(self) -> tuple[str, str] | None:
        """Lengths across, depths down."""
        return ("length", "depth")

    @property
    def breakdown(self) -> str | None:
        """None."""
        return None

    def settings(self) -> Mapping[str, Any]:
        """What can change a number of an example; the haystack by the hash of its text, the seed where something is drawn.

        Raises:
            ConfigError: a setting that cannot be used.
            DataError: the haystack cannot be read.
        """
        self._check()
        return (
            {
                "needle": self.needle,
                "question": self.question,
                "answers": list(self.answers),
                "prompt": self.prompt,
                "haystack_sha256": hashlib.sha256(read_haystack(self.haystack).encode()).hexdigest(),
                "reserve_tokens": self.reserve_tokens,
                "period_tokens": None if self.period_tokens is None else list(self.period_tokens),
                "max_new_tokens": self.max_new_tokens,
                "min_new_tokens": self.min_new_tokens,
                "stop_at_newline": self.stop_at_newline,
            }
            | ({"seed": self.seed} if self._drawn else {})
            | ({"distractors": self.distractors} if self.distractors else {})
        )

    def examples(self, tokenizer: PreTrainedTokenizerBase | None) -> Sequence[Example]:
        """One example per length, depth and sample, in that order; ids are ``4000-44``, further samples ``4000-44-1``.

        Args:
            tokenizer: the model's.

        Raises:
            ConfigError: a setting that cannot be used, or a length without room for the needle.
            DataError: a haystack that is missing, empty or malformed.
        """
        if tokenizer is None:
            raise ConfigError(
                f"{self.name} counts lengths in tokens and got no tokenizer: use a model with a tokenizer"
            )
        self._check()
        lengths, depths = expand_lengths(self.lengths), expand_depths(self.depths)
        text = read_haystack(self.haystack)
        periods = self._periods(tokenizer)
        return [
            example
            for length in lengths
            for example in self._examples_of(
                length, depths, haystack_tokens(text, length, tokenizer), tokenizer, periods
            )
        ]

    def stop_ids(self, tokenizer: PreTrainedTokenizerBase | None, end_ids: frozenset[int]) -> frozenset[int]:
        """The model's own end tokens and, with ``stop_at_newline``, the last token of a line break.

        Raises:
            ConfigError: the tokenizer has no token for a line break.
        """
        if not self.stop_at_newline or tokenizer is None:
            return end_ids
        newline = encode(tokenizer, "\n")
        if not newline:
            raise ConfigError(
                "task.stop_at_newline=true, but the tokenizer has no token for a line break: use "
                "task.stop_at_newline=false"
            )
        return end_ids | {newline[-1]}

    def score(self, example: Example, text: str | None) -> Mapping[str, float]:
        """Three readings of one response.

        ``word_overlap`` is what the published heatmaps draw: the share of the answer's different words, split at white
        space and lower-cased, that the response holds, 0-1. ``rouge1_x10`` is what the published runs store: ROUGE-1 F
        with stemming against the whole needle, x10; quoting the answer alone gives 7.27, not 10. ``contains_answer`` is
        1 where the answer stands in the response as it is, but for case. With several answers, ``word_overlap`` and
        ``contains_answer`` are means over them.
        """
        response = (text or "").strip()
        lowered = response.lower()
        words = set(lowered.split())
        expected = [set(answer.lower().split()) for answer in example.references]
        needle = self._texts(example.id)["needle"]
        scores = {
            "word_overlap": sum(len(words & wanted) / len(wanted) for wanted in expected) / len(expected),
            "rouge1_x10": 10 * float(_scorer().score(needle, response)["rouge1"].fmeasure) if response else 0.0,
            "contains_answer": sum(answer.lower() in lowered for answer in example.references)
            / len(example.references),
        }
        return {metric.name: scores[metric.name] for metric in self.metrics}

    @property
    def _drawn(self) -> bool:
        """Whether any template holds a drawn key or value."""
        return any(
            slot in text
            for text in (self.needle, self.question, self.prompt, *self.answers)
            for slot in ("{key}", "{value}")
        )

    def _texts(self, example_id: str) -> dict[str, str]:
        """``key``, ``value`` and, filled with them, ``needle`` and ``question`` of one example."""
        key, value = next(keys_and_values(self.seed, example_id))
        drawn = {"key": key, "value": value}
        return drawn | {"needle": _fill(self.needle, drawn), "question": _fill(self.question, drawn)}

    def _distractors(self, example_id: str) -> Iterator[str]:
        """The other needles of one example."""
        for key, value in islice(keys_and_values(self.seed, example_id), 1, 1 + self.distractors):
            yield _fill(self.needle, {"key": key, "value": value})

    def _examples_of(
        self,
        length: int,
        depths: Sequence[float],
        haystack: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        periods: AbstractSet[int],
    ) -> Iterator[Example]:
        """The examples of one length; ``haystack`` are the tokens that fill it."""
        if any(0 < depth < 100 for depth in depths) and not periods & set(haystack):
            raise ConfigError(
                f"no sentence ends in the first {len(haystack)} tokens of task.haystack={short(self.haystack)} "
                "(period tokens "
                f"{sorted(periods)}), so every needle would stand at depth 0: set task.period_tokens to the ids "
                "that end its sentences"
            )
        for depth in depths:
            for sample in range(self.samples):
                example_id = f"{length}-{depth}" + (f"-{sample}" if sample else "")
                texts = self._texts(example_id)
                needles = [encode(tokenizer, text) for text in (texts["needle"], *self._distractors(example_id))]
                room = length - self.reserve_tokens - sum(map(len, needles))
                if room < 1:
                    raise ConfigError(
                        f"task.lengths has {length}, which leaves no haystack beside "
                        f"reserve_tokens={self.reserve_tokens} and "
                        f"{f'needles of {sum(map(len, needles))}' if self.distractors else f'a needle of {len(needles[0])}'} tokens: use "
                        f"lengths of {length - room + 1} or more, or a smaller task.reserve_tokens"
                    )
                hay = list(haystack[:room])
                draw = random.Random(f"{self.seed}/{example_id}/depths").random
                at = [depth, *(100 * draw() for _ in needles[1:])]
                points = [insertion_point(hay, percent, periods) for percent in at]
                # From the back, so that a point stays where it is; at one point the asked needle stands last.
                for point, needle in sorted(zip(points, needles, strict=True), key=lambda pair: -pair[0]):
                    hay[point:point] = needle
                context = decode(tokenizer, hay)
                yield Example(
                    id=example_id,
                    prompt=_fill(self.prompt, texts | {"context": context}),
                    references=tuple(_fill(answer, texts) for answer in self.answers),
                    group={"length": length, "depth": depth},
                )

    def _periods(self, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
        """The ids that end a sentence."""
        if self.period_tokens is not None:
            return frozenset(self.period_tokens)
        # SentencePiece writes a period that stands alone and one after a word with different tokens.
        written = (encode(tokenizer, "."), encode(tokenizer, "a."))
        return frozenset(ids[-1] for ids in written if ids)

    def _check(self) -> None:
        """Refuses settings that would fail later or measure something else."""
        for knob in ("name", "needle", "question", "prompt", "haystack"):
            value = getattr(self, knob)
            if not isinstance(value, str) or (knob != "question" and not value.strip()):
                raise ConfigError(f"task.{knob}={short(value)} is not a text: give it one, in quotes")
        if (
            not is_list(self.answers)
            or not self.answers
            or not all(isinstance(a, str) and a.strip() for a in self.answers)
        ):
            raise ConfigError(
                f"task.answers={short(self.answers)} is not a list of texts: use task.answers=['first','second']"
            )
        if "{context}" not in self.prompt:
            raise ConfigError(
                f"task.prompt={short(self.prompt)} has no {{context}}: put {{context}} where the haystack goes"
            )
        for knob, least in (
            ("samples", 1),
            ("distractors", 0),
            ("reserve_tokens", 0),
            ("max_new_tokens", 1),
            ("min_new_tokens", 0),
        ):
            whole(getattr(self, knob), f"task.{knob}", least)
        if self.min_new_tokens > self.max_new_tokens:
            raise ConfigError(
                f"task.min_new_tokens={self.min_new_tokens} is above task.max_new_tokens={self.max_new_tokens}: use "
                "less"
            )
        periods = self.period_tokens
        if periods is not None and not (is_list(periods) and periods and all(is_whole(p) and p >= 0 for p in periods)):
            raise ConfigError(
                f"task.period_tokens={short(periods)} is not a list of token ids: use null for the tokenizer's period"
            )
        if not is_whole(self.seed):
            raise ConfigError(f"task.seed={short(self.seed)} is not a whole number: use one")
        if not isinstance(self.stop_at_newline, bool):
            raise ConfigError(
                f"task.stop_at_newline={short(self.stop_at_newline)} is neither true nor false: use one of them"
            )
        if self.samples > 1 and not self._drawn:
            raise ConfigError(
                f"task.samples={self.samples} would repeat the same example, as no template of {self.name} holds "
                f"{{key}} or {{value}}: use task.samples=1"
            )
        if self.distractors and "{key}" not in self.needle:
            raise ConfigError(
                f"task.distractors={self.distractors} would repeat the same needle, as task.needle of {self.name} "
                f"holds no {{key}}: use task.distractors=0"
            )
        if self.distractors >= MOST:
            raise ConfigError(
                f"task.distractors={self.distractors} is not below {MOST}, the number of different keys: use fewer"
            )
        _ = self.metrics  # refuses an unknown ``show``


def _fill(template: str, values: Mapping[str, str]) -> str:
    """Replaces slots in one pass, so that braces in the haystack or in a needle stay what they are."""
    return re.sub(r"\{(context|question|key|value)\}", lambda match: values.get(match[1], match[0]), template)


@lru_cache(maxsize=1)
def _scorer() -> rouge_scorer.RougeScorer:
    from rouge_score import rouge_scorer  # brings nltk: not where nothing is scored

    return rouge_scorer.RougeScorer(["rouge1"], use_stemmer=True)
