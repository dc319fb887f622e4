"""Texts for training: generated prose in two vocabularies, one of English words and one of words that exist nowhere."""

from __future__ import annotations

import numpy as np

from tasks.haystack import SEED, generated_text

# Wordings of questions and answers the model is to read: those of conf/task and others like them. What they ask for is always drawn.
OPENERS = (
    " </book>.\n Based on the content of the book, Question: ",
    "\nQuestion: ",
    "\n\nQuestion: ",
    "\nWhat does the text say?\n",
    "\n",
    "\n\n",
    " ",
)
JOINERS = (": \nAnswer:", "\nAnswer:", " \nAnswer:", ":", " Answer:", "?\nAnswer:", "\n")
FACTS = (  # before the key, between key and value, behind the value; then the same of a question, which ends before the value
    (
        " One of the special magic numbers for ",
        " is:",
        ".",
        "\nWhat is the special magic number for ",
        " mentioned in the provided text is",
    ),
    (" The code of ", " is", ".", "\nQuestion: What is the code of ", "?\nAnswer:"),
    (" Remember that ", " has the number", ".", "\nThe number of ", " is"),
    ("\n", ":", "\n", "\n", ":"),
    (" ", " =", ";", "\n", " ="),
)
PHRASES = (  # the same of sentences
    ("\nThe", " is", ".\n", " </book>.\n Based on the content of the book, Question: The", " is: \nAnswer:"),
    ("\nThe", " is", ".\n", "\nQuestion: The", " is: \nAnswer:"),
    (" The", " was", ".", "\nQuestion: The", " was:\nAnswer:"),
    ("\n", " is", ".\n", "\nQuestion: What is", "?\nAnswer:"),
    ("\nThe", " is", ".\n", "\nThe", " is"),
    (" When", ", then", ".", "\nWhen", ", then"),
)
LABELS = (  # before a question, between question and label, behind the label
    ("Question: ", "\nType:", "\n"),
    ("", " ->", "\n"),
    ("Q: ", "\nA:", "\n\n"),
)

_ONSETS = (
    "b", "br", "c", "ch", "cl", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "pl", "qu", "r", "s", "sh",
    "sk", "st", "t", "th", "tr", "v", "w", "y", "z",
)  # fmt: skip
_NUCLEI = ("a", "e", "i", "o", "u", "ai", "ea", "ee", "oo", "ou", "ar", "er", "or")
_CODAS = ("", "", "", "n", "r", "l", "s", "t", "m", "nd", "st", "ck", "ng", "x")
SMALL_WORDS = (
    "the", "a", "of", "to", "and", "in", "is", "it", "that", "was", "for", "on", "with", "as", "at", "by", "not", "you", "are",
    "what", "have", "this", "do", "one", "or", "there", "all", "they", "from", "but", "people", "more",
)  # fmt: skip


def town_text(seed: int, characters: int) -> str:
    """Prose like the built-in haystack's, never that text itself.

    Raises:
        ValueError: ``seed`` is the built-in haystack's.
    """
    if seed == SEED:
        raise ValueError(f"seed={seed} is that of the built-in haystack, which is for evaluation")
    return generated_text(seed, characters)


def word(rng: np.random.Generator) -> str:
    """A word of one to three syllables that most likely nobody has written before."""
    syllables = int(rng.integers(1, 4))
    parts = rng.random((syllables, 3))
    return "".join(_ONSETS[int(a * len(_ONSETS))] + _NUCLEI[int(b * len(_NUCLEI))] + _CODAS[int(c * len(_CODAS))] for a, b, c in parts)


def invented_text(rng: np.random.Generator, characters: int) -> str:
    """Prose of invented words between common small ones, by Zipf's law, with capitals, commas, dashes, numbers and line breaks."""
    words = [word(rng) for _ in range(600)]
    zipf = 1 / np.arange(1, len(words) + 1)
    zipf /= zipf.sum()
    sentences: list[str] = []
    written = 0
    while written < characters:
        count = int(rng.integers(4, 25))
        small = rng.random(count) < 0.45
        chosen = [
            SMALL_WORDS[int(rng.integers(len(SMALL_WORDS)))] if is_small else words[index]
            for is_small, index in zip(small, rng.choice(len(words), count, p=zipf), strict=True)
        ]
        if rng.random() < 0.1:
            chosen[int(rng.integers(count))] = str(int(rng.integers(1, 3000)))
        chosen = [part.capitalize() if rng.random() < 0.06 else part for part in chosen]
        chosen = [part + ("," if rng.random() < 0.07 else "") for part in chosen]
        sentence = " ".join(chosen).rstrip(",")
        end = ("." if rng.random() < 0.85 else "?") + ("\n\n" if rng.random() < 0.12 else "\n" if rng.random() < 0.1 else " ")
        sentences.append(sentence[0].upper() + sentence[1:] + end)
        written += len(sentences[-1])
    return "".join(sentences)
