"""Texts of documents with a question: those that belong to it, among others, from the files of SQuAD and HotpotQA."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.ruler.recipe import DOCUMENT, FORMS
from tasks.ruler.text import Text, Undrawable


@dataclass(frozen=True)
class Question:
    """A question with its documents, as numbers of documents.

    Attributes:
        text: the question.
        answers: acceptable answers.
        own: the documents that answer it.
        near: documents of the same article, which come first among the others.
    """

    text: str
    answers: tuple[str, ...]
    own: tuple[int, ...]
    near: tuple[int, ...] = ()


@dataclass(frozen=True)
class Documents:
    """The documents of a file and the questions on them, in RULER's order."""

    texts: tuple[str, ...]
    questions: tuple[Question, ...]


class DocumentTexts:
    """Makes texts of a question among documents, with all that is drawn in RULER's order. A size counts documents."""

    def __init__(self, seed: int, documents: Documents) -> None:
        """Begin to draw.

        Args:
            seed: seed of all that is drawn.
            documents: the documents, and the questions, of which record i gets the i-th.
        """
        self.step = 10
        self._seed, self._rng, self._documents = seed, random.Random(seed), documents

    def make(self, size: int, index: int) -> Text:
        """A text of a size.

        Args:
            size: number of documents.
            index: number of the question.

        Raises:
            Undrawable: the question has more documents of its own.
        """
        question, every = self._documents.questions[index], self._documents.texts
        form = FORMS["qa"]
        if size < len(every):
            chosen = [every[i] for i in self._chosen(question, size)]
        else:
            chosen = (list(every) * -(-size // len(every)))[:size]
        random.Random(self._seed).shuffle(chosen)
        context = "\n\n".join(DOCUMENT.format(number=i, text=text) for i, text in enumerate(chosen, start=1))
        return Text(form.message.format(context=context, query=question.text), form.answer_prefix, question.answers)

    def _chosen(self, question: Question, size: int) -> Sequence[int]:
        wanted = size - len(question.own)
        if wanted < 0:
            raise Undrawable(f"a question has {len(question.own)} documents of its own")
        if wanted <= len(question.near):
            return [*question.own, *self._rng.sample(question.near, wanted)]
        taken = {*question.own, *question.near}
        others = [i for i in range(len(self._documents.texts)) if i not in taken]
        further = wanted - len(question.near)
        return [*question.own, *question.near, *self._rng.sample(others, further)]
