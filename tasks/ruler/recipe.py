"""The constants of RULER: its 13 tasks, their texts and the numbers of tokens.

Source of every text and number: https://github.com/NVIDIA/RULER at c3f5e3b (Apache-2.0), ``constants.py`` and
``synthetic.yaml`` of ``scripts/data/synthetic``. Paper: Hsieh et al., https://arxiv.org/abs/2404.06654.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

EXAMPLES = 500
"""Number of records of a task behind published numbers."""

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
NEEDLE = "One of the special magic {kind} for {key} is: {value}."
DOCUMENT = "Document {number}:\n{text}"
DEPTHS = (
    0, 3, 5, 8, 10, 13, 15, 18, 21, 23, 26, 28, 31, 33, 36, 38, 41, 44, 46, 49, 51, 54, 56, 59, 62, 64, 67, 69, 72, 74,
    77, 79, 82, 85, 87, 90, 92, 95, 97, 100,
)  # fmt: skip
"""The 40 depths, in percent of the sentences, at which needles stand among essays."""


@dataclass(frozen=True)
class Form:
    """The text of a kind of tasks.

    Attributes:
        message: template of the user's message.
        answer_prefix: template of the beginning of the answer, with the space before it.
        max_new_tokens: number of tokens that an answer may have.
    """

    message: str
    answer_prefix: str
    max_new_tokens: int


@dataclass(frozen=True)
class Needles:
    """What is hidden in a needle task, and in what.

    Attributes:
        haystack: ``noise``, ``essay``, or ``needle`` for other needles.
        key: kind of the keys: ``words`` or ``uuids``.
        value: kind of the values: ``numbers`` or ``uuids``.
        keys: number of keys.
        values: number of values of each key.
        queries: number of keys that are asked for, at most ``keys``.
    """

    haystack: str
    key: str
    value: str
    keys: int = 1
    values: int = 1
    queries: int = 1


FORMS: Mapping[str, Form] = {
    "niah": Form(
        "Some special magic {kind} are hidden within the following text. Make sure to memorize it. I will quiz you "
        "about the {kind} afterwards.\n{context}\nWhat are all the special magic {kind} for {query} mentioned in the "
        "provided text?",
        " The special magic {kind} for {query} mentioned in the provided text are",
        128,
    ),
    "vt": Form(
        "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n{context}\nQuestion: "
        "Find all variables that are assigned the value {query} in the text above.",
        " Answer: According to the chain(s) of variable assignment in the text above, {count} variables are assigned "
        "the value {query}, they are: ",
        30,
    ),
    "cwe": Form(
        "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that "
        "appear most often.\n{context}\nQuestion: What are the 10 most common words in the above list?",
        " Answer: The top 10 words that appear most often in the list are:",
        120,
    ),
    "fwe": Form(
        "Read the following coded text and track the frequency of each coded word. Find the three most frequently "
        "appeared coded words. {context}\nQuestion: Do not provide any explanation. Please ignore the dots '....'. "
        "What are the three most frequently appeared words in the above coded text?",
        " Answer: According to the coded text above, the three most frequently appeared words are:",
        50,
    ),
    "qa": Form(
        "Answer the question based on the given documents. Only give me the answer and do not output any other words."
        "\n\nThe following are given documents.\n\n{context}\n\nAnswer the question based on the given documents. Only "
        "give me the answer and do not output any other words.\n\nQuestion: {query}",
        " Answer:",
        32,
    ),
}
"""The kinds of tasks."""

NEEDLES: Mapping[str, Needles] = {
    "niah_single_1": Needles("noise", "words", "numbers"),
    "niah_single_2": Needles("essay", "words", "numbers"),
    "niah_single_3": Needles("essay", "words", "uuids"),
    "niah_multikey_1": Needles("essay", "words", "numbers", keys=4),
    "niah_multikey_2": Needles("needle", "words", "numbers"),
    "niah_multikey_3": Needles("needle", "uuids", "uuids"),
    "niah_multivalue": Needles("essay", "words", "numbers", values=4),
    "niah_multiquery": Needles("essay", "words", "numbers", keys=4, queries=4),
}

TASKS = (*NEEDLES, "vt", "cwe", "fwe", "qa_1", "qa_2")
"""The 13 tasks, in RULER's order."""

ESSAY_TASKS = tuple(task for task, needles in NEEDLES.items() if needles.haystack == "essay")
QA_TASKS: Mapping[str, str] = {"qa_1": "squad", "qa_2": "hotpotqa"}
"""The setting that names the data file of each task on questions and documents."""


def kind_of(task: str) -> str:
    """The kind of a task, a key of ``FORMS``."""
    return task.partition("_")[0]
