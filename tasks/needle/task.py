"""Needle in a haystack: whether the model can still quote one sentence hidden in a long text.

The results are a grid of the text's length and the sentence's depth. The test is Greg Kamradt's
(https://github.com/gkamradt/LLMTest_NeedleInAHaystack, MIT). Contexts are built and scored as in the PyramidKV
experiments, so that numbers can be compared with theirs: ``run_needle_in_haystack.py`` and the figure script of
https://github.com/Zefan-Cai/KVCache-Factory at c97f9d7 (MIT). Needle, question, answers and prompt are templates, so
one class also serves the magic numbers of RULER's niah_single (https://github.com/NVIDIA/RULER, Apache-2.0).

Differs:
    - A context of length L is made from no more of the haystack than L needs, so it does not depend on the other
      lengths asked for.
    - ``period_tokens: null`` also takes the period as it is written after a word. That gives the lists of the
      published code, [13] for Llama-3, [29889, 869] for Llama-2 and [842, 28723] for Mistral, without naming a model.
    - A haystack in which no sentence ends is refused; the published code then puts the needle at depth 0, whatever
      depth was asked for.
    - Magic numbers: the keys come from a word list of our own, and the needle is inserted by the sentence rule above
      instead of RULER's.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError
from harness.task import Example, Metric
from harness.text import decode
from tasks.checks import short
from tasks.needle.context import around, encode, haystack_tokens, insertion_point, period_ids, read_haystack
from tasks.needle.form import fill, form_settings, frame_of, written
from tasks.needle.grid import expand_depths, expand_lengths
from tasks.needle.scores import needle_metrics, score_response
from tasks.needle.settings import check_needle, is_drawn
from tasks.needle.words import keys_and_values
from tasks.prompting import Frame, cleans_up, line_break

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Needle:
    """A grid of lengths and depths, with one needle to be found in each context.

    Every default is in ``conf/task/needle*.yaml``. Templates may contain ``{key}`` and ``{value}``: two words and a
    7-digit number, drawn for each example from ``seed``, its length, its depth and its sample, and from nothing else.

    Attributes:
        name: label of the results.
        needle: template of the hidden text, inserted as it is (it brings its own line breaks or spaces).
        question: template of the question.
        answers: templates of what a correct response contains, one or more.
        prompt: template with ``{context}`` and, usually, ``{question}``.
        haystack: ``builtin``, or a folder whose ``*.txt`` files (UTF-8) are joined in the order of their names.
        lengths: context lengths in tokens, ``reserve_tokens`` included; entries are integers or ``{from, to, step}``
            (``to`` included).
        depths: percent of the context before the needle, 0-100; entries are numbers or ``{count: N}``, which stands for
            N whole percents from 0 to 100.
        samples: examples per length and depth, 1 or more; above 1 only if a template contains ``{key}`` or ``{value}``.
        distractors: number of other needles in the same context, each with its own key and value at a random depth;
            0 or more, and above 0 only if the needle's template contains ``{key}``.
        reserve_tokens: tokens of each length that are left free for prompt and response.
        period_tokens: ids that end a sentence, or None for the tokenizer's own.
        seed: seed of ``{key}`` and ``{value}``.
        max_new_tokens: largest number of generated tokens.
        min_new_tokens: number of tokens before which no stop token can be generated.
        stop_at_newline: whether the newline token also ends a generation.
        show: the headline metric: ``contains_answer``, ``word_overlap`` (or ``plain_word_overlap``) or ``rouge1_x10``.
        ignore_punctuation: whether word overlap is ``plain_word_overlap``, that of runs of letters and digits.
            Manifests without it are of needles that are scored as published.
        clean_up: whether decoded texts, the context among them, lose spaces before punctuation; one of
            ``tasks.prompting.CLEAN_UP``.
        chat: whether the question is asked in the model's chat template, by ``message``, and not by ``prompt``;
            ``auto``: if its tokenizer has one.
        message: template of the user's message in the chat template, with ``{context}``.
        answer_prefix: template of the beginning of the answer in the chat template; "" leaves all of it to the model.
        chat_arguments: arguments of the chat template. This and the last five have defaults here, because the results
            of earlier releases do not name them.
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
    ignore_punctuation: bool = False
    clean_up: str = "installed"
    chat: bool | str = False
    message: str = ""
    answer_prefix: str = ""
    chat_arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """All three metrics, the one to ``show`` first.

        Raises:
            ConfigError: ``show`` is not one of them.
        """
        metrics = needle_metrics(self.ignore_punctuation)
        names = [metric.name for metric in metrics]
        if self.show not in names:
            raise ConfigError(
                f"task.show={short(self.show)} is not a metric of {self.name}: use one of {', '.join(names)}"
            )
        return tuple(sorted(metrics, key=lambda metric: metric.name != self.show))

    @property
    def scoring_knobs(self) -> frozenset[str]:
        """The settings that change the scores alone: ``show`` and ``ignore_punctuation``."""
        return frozenset({"show", "ignore_punctuation"})

    def score_settings(self) -> dict[str, Any]:
        """How word overlap splits words, if not as published; all three metrics are always computed."""
        return {"ignore_punctuation": True} if self.ignore_punctuation else {}

    @property
    def needs_tokenizer(self) -> bool:
        """True, because lengths are counted in the model's tokens."""
        return True

    @property
    def heatmap_axes(self) -> tuple[str, str] | None:
        """Length on the horizontal axis, depth on the vertical one."""
        return ("length", "depth")

    @property
    def breakdown(self) -> str | None:
        """None: scores are not also reported by group."""
        return None

    def settings(self) -> Mapping[str, Any]:
        """The settings that can change an example's numbers.

        The haystack is represented by the hash of its text; the seed is included only if something is drawn.

        Raises:
            ConfigError: a setting cannot be used.
            DataError: the haystack cannot be read.
        """
        check_needle(self)
        return (
            {
                "needle": self.needle,
                "question": self.question,
                "answers": list(self.answers),
                **form_settings(self),
                "haystack_sha256": hashlib.sha256(read_haystack(self.haystack).encode()).hexdigest(),
                "reserve_tokens": self.reserve_tokens,
                "period_tokens": None if self.period_tokens is None else list(self.period_tokens),
                "max_new_tokens": self.max_new_tokens,
                "min_new_tokens": self.min_new_tokens,
                "stop_at_newline": self.stop_at_newline,
            }
            | ({"seed": self.seed} if is_drawn(self) else {})
            | ({"distractors": self.distractors} if self.distractors else {})
            | self.score_settings()
        )

    def examples(self, tokenizer: PreTrainedTokenizerBase | None) -> Sequence[Example]:
        """One example per length, depth and sample, in that order.

        Ids read ``4000-44`` (length and depth); those of further samples ``4000-44-1``, ``4000-44-2``, …

        Args:
            tokenizer: the model's tokenizer.

        Raises:
            ConfigError: a setting cannot be used, or a length has no room for the needle.
            DataError: the haystack is missing, empty or malformed.
        """
        if tokenizer is None:
            raise ConfigError(
                f"{self.name} counts lengths in tokens and got no tokenizer: use a model with a tokenizer"
            )
        check_needle(self)
        lengths, depths = expand_lengths(self.lengths), expand_depths(self.depths)
        text = read_haystack(self.haystack)
        periods, frame = period_ids(self.period_tokens, tokenizer), frame_of(self, tokenizer)
        return [
            example
            for length in lengths
            for example in self._examples_of(
                length,
                depths,
                haystack_tokens(text, length, tokenizer, self.cleans_up(tokenizer)),
                tokenizer,
                periods,
                frame,
            )
        ]

    def stop_ids(self, tokenizer: PreTrainedTokenizerBase | None, end_ids: frozenset[int]) -> frozenset[int]:
        """The ids that end a generation: the model's end tokens and, with ``stop_at_newline``, that of a line break.

        Of a line break that takes several tokens, the last one counts.

        Raises:
            ConfigError: the tokenizer has no token for a line break.
        """
        if not self.stop_at_newline or tokenizer is None:
            return end_ids
        return end_ids | {line_break(tokenizer)}

    def cleans_up(self, tokenizer: PreTrainedTokenizerBase) -> bool | None:
        """Whether spaces of contexts and of generated texts are cleaned up."""
        return cleans_up(self.clean_up, tokenizer)

    def score(self, example: Example, text: str | None) -> Mapping[str, float]:
        """The three scores of one response, the metric to ``show`` first; see ``tasks.needle.scores``."""
        needle = self._texts(example.id)["needle"]
        scores = score_response(needle, example.references, text or "", self.ignore_punctuation)
        return {metric.name: scores[metric.name] for metric in self.metrics}

    def _texts(self, example_id: str) -> dict[str, str]:
        """``key`` and ``value`` of one example, and its ``needle`` and ``question`` filled with them."""
        key, value = next(keys_and_values(self.seed, example_id))
        drawn = {"key": key, "value": value}
        return drawn | {"needle": fill(self.needle, drawn), "question": fill(self.question, drawn)}

    def _distractors(self, example_id: str) -> Iterator[str]:
        """The distractors of one example."""
        for key, value in islice(keys_and_values(self.seed, example_id), 1, 1 + self.distractors):
            yield fill(self.needle, {"key": key, "value": value})

    def _examples_of(
        self,
        length: int,
        depths: Sequence[float],
        haystack: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        periods: AbstractSet[int],
        frame: Frame | None,
    ) -> Iterator[Example]:
        """The examples of one length.

        Args:
            length: length of the context in tokens, ``reserve_tokens`` included.
            depths: percents of the context before the needle.
            haystack: ``length`` tokens to fill the context with.
            tokenizer: the model's tokenizer.
            periods: ids that end a sentence.
            frame: the chat template, or None for the published form.
        """
        if any(0 < depth < 100 for depth in depths) and not periods & set(haystack):
            raise ConfigError(
                f"no sentence ends in the first {len(haystack)} tokens of task.haystack={short(self.haystack)} (period "
                f"tokens {sorted(periods)}), so every needle would stand at depth 0: set task.period_tokens to the ids "
                "that end its sentences"
            )
        for depth in depths:
            for sample in range(self.samples):
                example_id = f"{length}-{depth}" + (f"-{sample}" if sample else "")
                texts = self._texts(example_id)
                needles = [encode(tokenizer, text) for text in (texts["needle"], *self._distractors(example_id))]
                room = length - self.reserve_tokens - sum(map(len, needles))
                if room < 1:
                    taken = f"{'needles' if self.distractors else 'a needle'} of {sum(map(len, needles))} tokens"
                    raise ConfigError(
                        f"task.lengths has {length}, which leaves no haystack beside "
                        f"reserve_tokens={self.reserve_tokens} and {taken}: use lengths of {length - room + 1} or "
                        "more, or a smaller task.reserve_tokens"
                    )
                context = list(haystack[:room])
                draw = random.Random(f"{self.seed}/{example_id}/depths").random
                needle_depths = [depth, *(100 * draw() for _ in needles[1:])]
                points = [insertion_point(context, percent, periods) for percent in needle_depths]
                # From the back, so that earlier points stay valid; of needles at one point, the one asked for is last.
                for point, needle in sorted(zip(points, needles, strict=True), key=lambda pair: -pair[0]):
                    context[point:point] = needle
                text = decode(tokenizer, context, self.cleans_up(tokenizer))
                prompt = written(self, texts | {"context": text}, frame, tokenizer)
                yield Example(
                    id=example_id,
                    prompt=prompt.prompt,
                    question_at=prompt.question_at,
                    references=tuple(fill(answer, texts) for answer in self.answers),
                    group={"length": length, "depth": depth},
                    passages=around(texts["needle"], text),
                )
