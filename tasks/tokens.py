"""Prompts given as token ids in a file, to compare with any other implementation without a tokenizer.

Nothing is scored; records hold the generated ids in ``tokens`` and the number of kept entries per layer in ``kept``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError, DataError
from harness.task import Example, Metric
from harness.values import fits
from tasks.checks import is_list, is_whole, short, whole

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Tokens:
    """Prompts from a JSON file ``{name: [ids]}``. Every default is in ``conf/task/tokens.yaml``.

    A prompt may also be ``{"ids": [ids], "question_at": number}``, the number of its tokens before the question.

    Attributes:
        name: label of the results.
        prompts: path of the file.
        max_new_tokens: largest number of generated tokens.
        min_new_tokens: number of tokens before which no end token can be generated.
        stop: ids of the end tokens; the model's own are not added.
    """

    name: str
    prompts: str
    max_new_tokens: int
    min_new_tokens: int
    stop: Sequence[int]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Empty: nothing is scored."""
        return ()

    @property
    def needs_tokenizer(self) -> bool:
        """False, because prompts are given as ids."""
        return False

    @property
    def heatmap_axes(self) -> tuple[str, str] | None:
        """None: there is no heatmap."""
        return None

    @property
    def breakdown(self) -> str | None:
        """None: there are no scores to report by group."""
        return None

    def settings(self) -> Mapping[str, Any]:
        """The limits and the end tokens; prompts are hashed record by record, so that a file may grow.

        Raises:
            ConfigError: a setting cannot be used.
        """
        whole(self.max_new_tokens, "task.max_new_tokens", 1)
        whole(self.min_new_tokens, "task.min_new_tokens", 0)
        if not is_list(self.stop) or not all(is_whole(token) and token >= 0 for token in self.stop):
            raise ConfigError(
                f"task.stop={short(self.stop)} is not a list of token ids: use task.stop=[] or, for example, "
                "task.stop=[2]"
            )
        return {
            "max_new_tokens": self.max_new_tokens,
            "min_new_tokens": self.min_new_tokens,
            "stop": sorted(set(self.stop)),
        }

    def examples(self, tokenizer: PreTrainedTokenizerBase | None) -> Sequence[Example]:
        """One example per prompt, in the order of the file; its id is the prompt's name.

        Raises:
            DataError: the file is missing, holds something else than prompts, or has two prompts of one name.
        """
        try:
            prompts = json.loads(
                Path(self.prompts).expanduser().read_text(encoding="utf-8"), object_pairs_hook=self._without_doubled
            )
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"task.prompts={self.prompts} cannot be read ({type(error).__name__}): give a JSON file {{name: [ids]}}"
            ) from error
        except ValueError as error:
            raise DataError(
                f"task.prompts={self.prompts} is not JSON ({error}): give a JSON file {{name: [ids]}}"
            ) from error
        if not isinstance(prompts, dict) or not prompts:
            raise DataError(f"task.prompts={self.prompts} holds no prompt: give a JSON file {{name: [ids]}}")
        return [self._example(name, given) for name, given in prompts.items()]

    def stop_ids(self, tokenizer: PreTrainedTokenizerBase | None, end_ids: frozenset[int]) -> frozenset[int]:
        """The ids in ``stop``, and no others."""
        return frozenset(self.stop)

    def score(self, example: Example, text: str | None) -> Mapping[str, float]:
        """An empty mapping: nothing is scored."""
        return {}

    def _example(self, name: str, given: Any) -> Example:
        """The example of a prompt, given as its ids or as an object with ``ids`` and ``question_at``."""
        fields: dict[str, Any] = given if isinstance(given, dict) else {"ids": given}
        ids, question_at = fields.get("ids"), fields.get("question_at")
        if (
            fields.keys() - {"ids", "question_at"}
            or not isinstance(ids, list)
            or not fits(ids, list[int])
            or not fits(question_at, int | None)
        ):
            raise DataError(
                f"prompt {short(name)} of task.prompts={self.prompts} is not a list of token ids: give whole "
                'numbers, or {"ids": […], "question_at": 100}'
            )
        return Example(id=name, prompt=tuple(ids), question_at=question_at)

    def _without_doubled(self, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        """The prompts by name; JSON itself would silently keep the last of a name."""
        counts = Counter(name for name, _ in pairs)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise DataError(
                f"task.prompts={self.prompts} has {counts[twice[0]]} prompts of the name {short(twice[0])}: give each "
                "a name of its own"
            )
        return dict(pairs)
