"""Texts for training: generated prose of English words, of invented words, and of letters in any order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tasks.needle.haystack import SEED, generated_text

# Wordings of questions and answers that the model reads in training: those of conf/task and others like them. What they
# ask for is always drawn at random.
HEADS = (  # before the text
    "<|im_start|> This is a very long story book: <book> ",
    "A special magic number is hidden within the following text. Make sure to memorize it. "
    "I will quiz you about the number afterwards.\n",
    "Read the following text and answer briefly.\n\n",
    "Text: ",
    "\n\n",
)
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
# (before the key, between key and value, after the value; then, in the question, before and after the key)
FACTS = (
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
PHRASES = (  # the same for sentences
    ("\nThe", " is", ".\n", " </book>.\n Based on the content of the book, Question: The", " is: \nAnswer:"),
    ("\nThe", " is", ".\n", "\nQuestion: The", " is: \nAnswer:"),
    (" The", " was", ".", "\nQuestion: The", " was:\nAnswer:"),
    ("\n", " is", ".\n", "\nQuestion: What is", "?\nAnswer:"),
    ("\nThe", " is", ".\n", "\nThe", " is"),
    (" When", ", then", ".", "\nWhen", ", then"),
)
# (before the text, needle, question, answer), with a key and a value: conf/task/needle_magic.yaml and needle.yaml
NEEDLES = (
    (
        HEADS[1],
        " One of the special magic numbers for {key} is: {value}.",
        "\nWhat is the special magic number for {key} mentioned in the provided text? "
        "The special magic number for {key} mentioned in the provided text is",
        " {value}.",
    ),
    (
        HEADS[0],
        "\nThe{key} is{value}.\n",
        " </book>.\n Based on the content of the book, Question: The{key} is: \nAnswer:",
        "{value}.\n",
    ),
)
LABELS = (  # (before a question, between question and label, after the label)
    ("Question: ", "\nType:", "\n"),
    ("", " ->", "\n"),
    ("Q: ", "\nA:", "\n\n"),
)

# The text before the examples in LongBench's trec.
TYPES_HEAD = "Please determine the type of the question below. Here are some examples of questions.\n\n"

_ONSETS = (
    "b", "br", "c", "ch", "cl", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "pl", "qu", "r",
    "s", "sh", "sk", "st", "t", "th", "tr", "v", "w", "y", "z",
)  # fmt: skip
_CONSONANTS = "bcdfghjklmnpqrstvwxyz"
_VOWEL_FIRST = 0.3
_NUCLEI = ("a", "e", "i", "o", "u", "ai", "ea", "ee", "oo", "ou", "ar", "er", "or")
_CODAS = ("", "", "", "n", "r", "l", "s", "t", "m", "nd", "st", "ck", "ng", "x")
SMALL_WORDS = (
    "the", "a", "of", "to", "and", "in", "is", "it", "that", "was", "for", "on", "with", "as", "at", "by", "not", "you",
    "are", "what", "have", "this", "do", "one", "or", "there", "all", "they", "from", "but", "people", "more",
)  # fmt: skip


def town_text(seed: int, characters: int) -> str:
    """Prose like that of the built-in haystack, but never the same text.

    Args:
        seed: seed of the text.
        characters: length of the text.

    Raises:
        ValueError: ``seed`` is that of the built-in haystack.
    """
    if seed == SEED:
        raise ValueError(f"seed={seed} is that of the built-in haystack, which is for evaluation")
    return generated_text(seed, characters)


def word(rng: np.random.Generator) -> str:
    """An invented word of one to three syllables; three in ten begin with a vowel."""
    syllables = int(rng.integers(1, 4))
    parts = rng.random((syllables, 3))
    made = "".join(
        _ONSETS[int(a * len(_ONSETS))] + _NUCLEI[int(b * len(_NUCLEI))] + _CODAS[int(c * len(_CODAS))]
        for a, b, c in parts
    )
    return made.lstrip(_CONSONANTS) if rng.random() < _VOWEL_FIRST else made


def letters(rng: np.random.Generator) -> str:
    """One to nine letters in any order.

    The tokenizer splits them into small pieces, as it does with real words that are not in its training texts.
    """
    return "".join("abcdefghijklmnopqrstuvwxyz"[int(share * 26)] for share in rng.random(1 + int(rng.integers(9))))


def invented_text(rng: np.random.Generator, characters: int, make: Callable[[np.random.Generator], str] = word) -> str:
    """Prose of invented words between common small ones, with capitals, commas, numbers and line breaks.

    Invented words are drawn from 600, by Zipf's law.

    Args:
        rng: source of randomness.
        characters: least length of the text.
        make: makes an invented word.
    """
    words = [make(rng) for _ in range(600)]
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
        end = ("." if rng.random() < 0.85 else "?") + (
            "\n\n" if rng.random() < 0.12 else "\n" if rng.random() < 0.1 else " "
        )
        sentences.append(sentence[0].upper() + sentence[1:] + end)
        written += len(sentences[-1])
    return "".join(sentences)
