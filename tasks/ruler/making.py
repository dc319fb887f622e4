"""Records of any task, made for a tokenizer and a length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count as count_up
from itertools import islice

from tasks.ruler.document_texts import Documents, DocumentTexts
from tasks.ruler.fitting import Length, Texts, fitted_size, fitting
from tasks.ruler.needle_texts import NeedleTexts
from tasks.ruler.recipe import FORMS, NEEDLES, kind_of
from tasks.ruler.text import Text
from tasks.ruler.variable_texts import VariableTexts
from tasks.ruler.word_texts import CodedWords, CommonWords
from tasks.ruler.words import every_word, pairs

_SHORT = 4096
"""Below this length, RULER changes sizes by smaller steps and repeats words less often."""


@dataclass(frozen=True)
class Sources:
    """What texts are made of.

    Attributes:
        words: release of the word lists, one of ``tasks.ruler.words.VERSIONS``.
        essay: the words of the essays; empty where no task reads them.
        documents: documents and questions; None for other tasks than ``qa_1`` and ``qa_2``.
    """

    words: str
    essay: tuple[str, ...] = ()
    documents: Documents | None = None


def texts_of(
    task: str, tokens: int, seed: int, sources: Sources, count: Callable[[str], int]
) -> Iterator[tuple[Text, int]]:
    """The texts of a task's records, one after the other, each with the tokens that it takes with its answer.

    There is no last one, but for tasks on documents, which have as many as questions.

    Args:
        task: one of ``tasks.ruler.recipe.TASKS``.
        tokens: number of tokens of a text with its answer, at most.
        seed: seed of all that is drawn.
        sources: what texts are made of.
        count: number of tokens of a text.

    Raises:
        NeverFits: no text is short enough.
        Undrawable: the size of texts cannot be found with this seed.
    """
    kind, short = kind_of(task), tokens < _SHORT
    length = Length(tokens, FORMS[kind].max_new_tokens, count)
    match kind:
        case "niah":
            needles = NeedleTexts(NEEDLES[task], seed, short, pairs(sources.words), sources.essay)
            yield from _records(needles, length, fitted_size(needles, length))
        case "vt":
            variables = VariableTexts(seed, short, count)
            size = fitted_size(variables, replace(length, more=variables.example_tokens))
            yield from _records(variables.after_example(), length, size)
        case "cwe":
            common = CommonWords(seed, short, every_word(sources.words))
            yield from _records(common, length, fitted_size(common, length, common.first))
        case "fwe":
            yield from CodedWords(seed, length).records()
        case "qa":
            assert sources.documents is not None
            documents = DocumentTexts(seed, sources.documents)
            size = fitted_size(documents, length)
            yield from islice(_records(documents, length, size), len(sources.documents.questions))


def _records(texts: Texts, length: Length, size: int) -> Iterator[tuple[Text, int]]:
    return (fitting(texts, length, size, index) for index in count_up())
