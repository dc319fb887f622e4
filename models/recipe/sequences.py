"""Training sequences: something is planted in a filler, and the end asks for it. Loss falls on what was asked for, and on nothing else.

The kinds: *echoes*, a filler that keeps repeating pieces of itself; a *span* that goes on after its first words were
given again; a *fact*, a value that belongs to a key; a *phrase*, a sentence whose second part is asked for by its
first; *labels*, which the first tokens of a question decide; *questions*, whose labels their last words decide;
*forms*, such questions in a few forms that all labels share; *needles* in prose, in the prompts of the needle tasks,
and *many* of them, a few asked for; *keys*, short facts close together, told apart by nothing but the key. Everything
is drawn anew for every step.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from models.recipe.text import (
    FACTS,
    HEADS,
    JOINERS,
    LABELS,
    NEEDLES,
    OPENERS,
    PHRASES,
    SMALL_WORDS,
    TYPES_HEAD,
    invented_text,
    letters,
    town_text,
    word,
)

Ids = list[int]
_Make = Callable[[np.random.Generator], str]  # a word
_SPECIAL = 2  # <s> and </s> are never drawn

KINDS = ("echo", "span", "fact", "label", "phrase", "question", "needle", "form", "key", "many")


def _ids(array: NDArray[np.int64]) -> Ids:
    return [int(value) for value in array]


@dataclass(frozen=True)
class Pools:
    """Tokens of generated prose to cut fillers and spans from, and the wordings of questions."""

    town: NDArray[np.int64]
    invented: NDArray[np.int64]
    spelled: NDArray[np.int64]
    heads: tuple[Ids, ...]
    openers: tuple[Ids, ...]
    joiners: tuple[Ids, ...]
    facts: tuple[tuple[Ids, ...], ...]
    phrases: tuple[tuple[Ids, ...], ...]
    labels: tuple[tuple[Ids, ...], ...]
    vocabulary: int
    begin: int
    period: int
    encode: Callable[[str], Ids]


def make_pools(tokenizer: PreTrainedTokenizerBase, seed: int, characters: int) -> Pools:
    """Pools of so many characters of each prose, half of it of letters; another seed shares no text with this one."""

    def encode(text: str) -> Ids:
        return list(tokenizer.encode(text, add_special_tokens=False, verbose=False))

    invented = "".join(invented_text(np.random.default_rng([seed, part]), characters // 40) for part in range(40))
    spelled = "".join(
        invented_text(np.random.default_rng([seed, 40 + part]), characters // 80, letters) for part in range(40)
    )
    return Pools(
        np.array(encode(town_text(seed + 100, characters))),
        np.array(encode(invented)),
        np.array(encode(spelled)),
        tuple(map(encode, HEADS)),
        tuple(map(encode, OPENERS)),
        tuple(map(encode, JOINERS)),
        tuple(tuple(map(encode, wording)) for wording in FACTS),
        tuple(tuple(map(encode, wording)) for wording in PHRASES),
        tuple(tuple(map(encode, wording)) for wording in LABELS),
        len(tokenizer),
        int(tokenizer.bos_token_id),
        encode(".")[0],
        encode,
    )


class Writer:
    """Writes one sequence of a given length."""

    def __init__(self, pools: Pools, rng: np.random.Generator, tokens: int) -> None:
        self.pools, self.rng, self.tokens = pools, rng, tokens
        self.source = self._source()

    def write(self, kind: str) -> tuple[Ids, list[bool]]:
        """``tokens`` ids, which begin with ``<s>``, and which of them are asked for."""
        kinds = {
            "echo": self._echo,
            "span": self._span,
            "fact": self._fact,
            "label": self._label,
            "phrase": self._phrase,
            "question": self._question,
            "needle": self._needle,
            "form": self._form,
            "key": self._key,
            "many": self._many,
        }
        ids, asked = kinds[kind](self.tokens - 1)
        return [self.pools.begin, *ids], [False, *asked]

    # -- words ---------------------------------------------------------------------------------------------------

    def _below(self, bound: int) -> int:
        return int(self.rng.integers(bound))

    def _between(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, small ones as often as large ones by their logarithm."""
        return min(high, int(low * (high / low + 1 / low) ** self.rng.random())) if high > low else low

    def _source(self) -> Callable[[int], Ids]:
        """Where a filler comes from: random tokens, a small random language, prose of the town or of invented words."""
        rng, pools = self.rng, self.pools
        kind = rng.random()
        if kind < 0.15:
            return lambda count: rng.integers(_SPECIAL, pools.vocabulary, count).tolist()
        if kind < 0.4:
            return self._language()
        pool = pools.town if kind < 0.6 else pools.invented

        def prose(count: int) -> Ids:
            start = self._below(len(pool) - count)
            return _ids(pool[start : start + count])

        return prose

    def _language(self) -> Callable[[int], Ids]:
        """A Markov chain over a few tokens of the vocabulary, each with four successors, one of them likely."""
        size = self._between(10, 400)
        chosen = self.rng.integers(_SPECIAL, self.pools.vocabulary, size)
        successors = self.rng.integers(0, size, (size, 4))

        def chain(count: int) -> Ids:
            state = self._below(size)
            found = []
            for choice in self.rng.choice(4, count, p=(0.5, 0.25, 0.15, 0.1)).tolist():
                state = int(successors[state, choice])
                found.append(state)
            return _ids(chosen[found])

        return chain

    def _random(self, low: int, high: int) -> Ids:
        return _ids(self.rng.integers(_SPECIAL, self.pools.vocabulary, self._below(high - low + 1) + low))

    # -- kinds ---------------------------------------------------------------------------------------------------

    def _echo(self, room: int) -> tuple[Ids, list[bool]]:
        """Half filler, then pieces of all that stands before, each asked for behind its first tokens."""
        ids = self.source(room // 2 if self.rng.random() < 0.5 else self._between(room // 4, room * 3 // 4))
        asked = [False] * len(ids)
        while len(ids) < room:
            length = self._between(8, 40)
            start = self._below(max(1, len(ids) - length))
            given = self._between(3, 8)
            piece = ids[start : start + length]
            ids += piece
            asked += [place >= given for place in range(len(piece))]
        return ids[:room], asked[:room]

    def _span(self, room: int) -> tuple[Ids, list[bool]]:
        """A few spans, of the filler's source or another, each asked for behind its first words and perhaps a joiner."""
        other = self._source() if self.rng.random() < 0.7 else self.source
        plants: list[Ids] = []
        tail: Ids = []
        asked: list[bool] = []
        joiner: Ids = self._joiner()
        for _ in range(self._count(room, 60)):
            length = self._between(10, 44)
            span = other(length)
            framed = self.rng.random() < 0.5
            newline = self.pools.openers[4]
            plant = [*newline, *span, *newline] if framed else span
            given = self._between(4, length // 2)
            opener = self._opener()
            answer = span[given:] + (newline if framed else [])
            question = [*opener, *span[:given], *joiner]
            if len(tail) + sum(map(len, plants)) + len(plant) + len(question) + len(answer) > room:
                break
            plants.append(plant)
            tail += question + answer
            asked += [False] * len(question) + [True] * len(answer)
        return self._assemble(room, plants, tail, asked)

    def _fact(self, room: int) -> tuple[Ids, list[bool]]:
        """Keys with values, which are numbers or short."""
        return self._ask(room, self._fact_wording(), self._keys(), self._values(), 80, with_end=False)

    def _key(self, room: int) -> tuple[Ids, list[bool]]:
        """Keys with numbers, told and asked for in different words for the most part, so that only the key leads to its number."""
        encode, make = self.pools.encode, self._maker()
        before, (_, told, stop, _, asked_with) = encode(" for"), self.pools.facts[0]
        between = told if self.rng.random() < 0.75 else []
        lead = asked_with if self.rng.random() < 0.75 else between
        form, digits, gap = self._below(3), 1 + self._below(3), 1 + self._below(6)
        pair = self._pairs(make, 3, 40)

        def draw_key() -> Ids:
            if form == 0:
                return self._random(1, 1)
            return encode(f" {make(self.rng)}" if form == 1 else " " + pair("-"))

        facts: dict[tuple[int, ...], Ids] = {}
        used = 0
        for _ in range(2 + self._below(max(2, room // 40))):
            drawn = draw_key()
            number = encode(" " + "".join(str(self._below(10)) for _ in range(digits)))
            used += 2 * (len(drawn) + len(number)) + len(between) + len(lead) + 2 * (len(before) + len(stop)) + gap
            if used > room:
                break
            facts[tuple(drawn)] = number
        ids: Ids = []
        for key, number in facts.items():
            ids += [*self.source(self._below(gap)), *before, *key, *between, *number, *stop]
        asked = [False] * len(ids)
        order = list(facts)
        self.rng.shuffle(order)
        for key in order:
            ids += [*before, *key, *lead, *facts[key], *stop]
            asked += [False] * (len(before) + len(key) + len(lead)) + [True] * len(facts[key]) + [False] * len(stop)
        filler = self.source(room - len(ids))
        return filler + ids, [False] * len(filler) + asked

    def _phrase(self, room: int) -> tuple[Ids, list[bool]]:
        """Sentences of which the first part is asked for again, as the needle of the standard test is."""
        wording = self.pools.phrases[self._below(len(self.pools.phrases))]
        return self._ask(room, wording, lambda: self._words(2, 9), lambda: self._words(2, 12), 100, with_end=True)

    def _ask(
        self,
        room: int,
        wording: tuple[Ids, ...],
        make_key: Callable[[], Ids],
        make_value: Callable[[], Ids],
        each: int,
        with_end: bool,
    ) -> tuple[Ids, list[bool]]:
        """Facts of one wording; from one up to all of them are asked for, with what ends them or without."""
        pre, mid, post, ask, lead = wording
        facts: dict[tuple[int, ...], Ids] = {}
        used = 0
        wanted = self._count(room, each)
        while len(facts) < wanted:
            key, value = make_key(), make_value()
            used += (
                len(pre)
                + len(mid)
                + len(post)
                + len(ask)
                + len(lead)
                + 2 * (len(key) + len(value))
                + with_end * len(post)
            )
            if used > room or tuple(key) in facts:
                break
            facts[tuple(key)] = value
        plants = [[*pre, *key, *mid, *value, *post] for key, value in facts.items()]
        questions = list(facts.items())
        self.rng.shuffle(questions)
        if self.rng.random() < 0.3:
            questions = questions[: 1 + self._below(len(questions) or 1)]
        tail: Ids = []
        asked: list[bool] = []
        for wanted_key, answer in questions:
            question, expected = [*ask, *wanted_key, *lead], answer + (post if with_end else [])
            tail += question + expected
            asked += [False] * len(question) + [True] * len(expected)
        return self._assemble(room, plants, tail, asked)

    def _label(self, room: int) -> tuple[Ids, list[bool]]:
        """Questions with labels: the same first words have the same label; asked for once a class was seen."""
        before, between, behind = self.pools.labels[self._below(len(self.pools.labels))]
        if self.rng.random() < 0.4:
            before, between = self._random(0, 3), self._random(1, 3)
        text = self.rng.random() < 0.6
        firsts = [word(self.rng).capitalize() for _ in range(4)]
        classes = [(self._mark(firsts, text), self._label_of(text)) for _ in range(self._between(2, 14))]
        body = self._source() if self.rng.random() < 0.5 else self.source
        ids: Ids = []
        asked: list[bool] = []
        seen: set[int] = set()
        filler = self.source(self._below(room // 2)) if self.rng.random() < 0.3 else []
        while len(filler) + len(ids) < room:
            pick = self._below(len(classes))
            mark, label = classes[pick]
            question = [*before, *mark, *body(self._between(2, 16)), *between]
            ids += question + label + behind
            asked += [False] * len(question) + [pick in seen] * len(label) + [False] * len(behind)
            seen.add(pick)
        return (filler + ids)[:room], ([False] * len(filler) + asked)[:room]

    def _question(self, room: int) -> tuple[Ids, list[bool]]:
        """Labels in words: the last word of a question, or the last two, tell its type."""
        wording, types = self._types(lambda: self._between(2, 14))
        most = self._between(2, 12)
        return self._classify(room, wording, types, lambda: self._words(1, most))

    def _form(self, room: int) -> tuple[Ids, list[bool]]:
        """The same in few forms with few names: all types share these, so that only the last words tell; mostly behind a head."""
        make = self._maker()
        wording, types = self._types(lambda: 2 + self._below(min(15, 1 + room // 20)), make)
        names = [self._word_text(1, 3, make) for _ in range(self._between(2, 12))]
        forms = [[self._word_text(1, 4, make) for _ in range(1 + self._below(3))] for _ in range(self._between(1, 10))]

        def filled() -> Ids:
            *named, last = forms[self._below(len(forms))]
            return self.pools.encode("".join(part + names[self._below(len(names))] for part in named) + last)

        draw = self.rng.random()
        prose = f"{self._word_text(2, 30, make)}\n\n" if draw < 0.75 else ""
        head = self.pools.encode(TYPES_HEAD if draw < 0.5 else prose)
        head = head if len(head) < room / 4 else []
        ids, asked = self._classify(room - len(head), wording, types, filled)
        return head + ids, [False] * len(head) + asked

    def _types(
        self, count: Callable[[], int], make: _Make = word
    ) -> tuple[tuple[str, str, str], list[tuple[str, str]]]:
        """A wording of questions and labels; what questions of a type end with, and its name.

        Args:
            count: how many types, drawn when the wording is known.
        """
        wording = LABELS[0] if self.rng.random() < 0.7 else LABELS[2]
        lasts = [make(self.rng) for _ in range(2)]
        return wording, [
            (
                f"{make(self.rng)} {lasts[self._below(2)]}" if self.rng.random() < 0.2 else make(self.rng),
                make(self.rng).capitalize(),
            )
            for _ in range(count())
        ]

    def _classify(
        self, room: int, wording: tuple[str, str, str], types: list[tuple[str, str]], body: Callable[[], Ids]
    ) -> tuple[Ids, list[bool]]:
        """Questions with their types to the end of the room, asked for once a type was seen."""
        before, between, behind = wording
        ids: Ids = []
        asked: list[bool] = []
        seen: set[int] = set()
        while len(ids) < room:
            pick = self._below(len(types))
            mark, name = types[pick]
            question = self.pools.encode(before.rstrip()) + body() + self.pools.encode(f" {mark}?{between}")
            label, end = self.pools.encode(f" {name}"), self.pools.encode(behind)
            ids += question + label + end
            asked += [False] * len(question) + [pick in seen] * len(label) + [False] * len(end)
            seen.add(pick)
        return ids[:room], asked[:room]

    def _many(self, room: int) -> tuple[Ids, list[bool]]:
        """More needles, of which up to four are asked for; keys of numbers share words."""
        return self._needle(room, many=True)

    def _needle(self, room: int, many: bool = False) -> tuple[Ids, list[bool]]:
        """Needles of one task, asked for: behind the ends of sentences, and often first or last in the text."""
        encode = self.pools.encode
        task = self._below(len(NEEDLES))
        head, needle, question, answer = NEEDLES[task]
        begin = encode(head)
        make = self._maker()
        plants: list[Ids] = []
        tail: Ids = []
        asked: list[bool] = []
        wanted = 2 + self._below(max(1, room // 60)) if many else self._count(room, 250)
        most_asked = 1 + self._below(4) if many else wanted
        pair = self._pairs(make, 8, 40) if many else lambda dash: f"{make(self.rng)}{dash}{make(self.rng)}"
        keys: set[str] = set()
        while len(plants) < wanted:
            if task == 0:
                key, value = pair("-"), "".join(str(self._below(10)) for _ in range(7))
            else:
                key, value = self._word_text(2, 9, make), self._word_text(3, 12, make)
            plant, ask, told = (encode(part.format(key=key, value=value)) for part in (needle, question, answer))
            if len(begin) + len(tail) + sum(map(len, plants)) + len(plant) + len(ask) + len(told) > room:
                break
            if many and key in keys:
                continue
            keys.add(key)
            if len(plants) < most_asked:
                tail += ask + told
                asked += [False] * len(ask) + [True] * len(told)
            plants.append(plant)
        if not plants:
            return self._phrase(room)
        draw = self.rng.random()
        pool = self.pools.town if draw < 0.25 else self.pools.invented if draw < 0.55 else self.pools.spelled
        left = room - len(begin) - len(tail) - sum(map(len, plants))
        start = self._below(len(pool) - left)
        filler = _ids(pool[start : start + left])
        stops = [0, *(place + 1 for place, token in enumerate(filler) if token == self.pools.period)]
        places = sorted(stops[bisect_right(stops, self._below(left + 1)) - 1] for _ in plants)
        draw = self.rng.random()
        places[0] = 0 if draw < 0.25 else places[0]
        places[-1] = left if draw > 0.6 else places[-1]
        order = self.rng.permutation(len(plants))
        ids = begin + _planted(filler, places, [plants[int(place)] for place in order])
        return ids + tail, [False] * len(ids) + asked

    def _mark(self, firsts: list[str], text: bool) -> Ids:
        """What a question of a class begins with: one word, or two of which another class may share the first."""
        if not text:
            return self._random(1, 3)
        draw = self.rng.random()
        return self.pools.encode(
            word(self.rng).capitalize() if draw < 0.6 else f"{firsts[self._below(4)]} {word(self.rng)}"
        )

    def _label_of(self, text: bool) -> Ids:
        return self.pools.encode(" " + word(self.rng).capitalize()) if text else self._random(1, 3)

    # -- parts ---------------------------------------------------------------------------------------------------

    def _count(self, room: int, each: int) -> int:
        """How many things to plant: one in a third of the sequences, else up to what fits."""
        return 1 if self.rng.random() < 0.3 else self._between(1, max(1, room // each))

    def _opener(self) -> Ids:
        return (
            self.pools.openers[self._below(len(self.pools.openers))] if self.rng.random() < 0.7 else self._random(0, 4)
        )

    def _joiner(self) -> Ids:
        draw = self.rng.random()
        if draw < 0.3:
            return []
        return self.pools.joiners[self._below(len(self.pools.joiners))] if draw < 0.8 else self._random(1, 5)

    def _fact_wording(self) -> tuple[Ids, ...]:
        if self.rng.random() < 0.6:
            return self.pools.facts[self._below(len(self.pools.facts))]
        pre, mid, post = self._random(0, 4), self._random(1, 4), self._random(0, 2)
        if self.rng.random() < 0.5:
            return pre, mid, post, pre or self._random(1, 2), mid
        return pre, mid, post, self._random(1, 4), self._random(1, 6)

    def _keys(self) -> Callable[[], Ids]:
        """Random tokens, or two words with a dash, which may share a word with another key."""
        if self.rng.random() < 0.5:
            return lambda: self._random(1, 4)
        pair = self._pairs(word, 2, 30)
        dash = "-" if self.rng.random() < 0.7 else " "
        return lambda: self.pools.encode(pair(dash))

    def _pairs(self, make: _Make, least: int, most: int) -> Callable[[str], str]:
        """Two words with something between them, each of so many that another pair may share it."""
        firsts, seconds = ([make(self.rng) for _ in range(self._between(least, most))] for _ in range(2))
        return lambda between: f"{firsts[self._below(len(firsts))]}{between}{seconds[self._below(len(seconds))]}"

    def _words(self, least: int, most: int) -> Ids:
        """Common small words and invented ones, a space before each."""
        return self.pools.encode(self._word_text(least, most))

    def _maker(self) -> _Make:
        """How to make words: of syllables, or of letters in any order."""
        return letters if self.rng.random() < 0.5 else word

    def _word_text(self, least: int, most: int, make: _Make = word) -> str:
        chosen = [
            SMALL_WORDS[self._below(len(SMALL_WORDS))] if self.rng.random() < 0.4 else make(self.rng)
            for _ in range(self._between(least, most))
        ]
        chosen = [part.capitalize() if self.rng.random() < 0.15 else part for part in chosen]
        return "".join(f" {part}" for part in chosen)

    def _values(self) -> Callable[[], Ids]:
        """A number of up to twelve digits, random tokens, or an invented word."""
        draw = self.rng.random()
        if draw < 0.5:
            digits = 7 if draw < 0.25 else 1 + self._below(12)
            return lambda: self.pools.encode(" " + "".join(str(self._below(10)) for _ in range(digits)))
        if draw < 0.8:
            return lambda: self._random(1, 6)
        return lambda: self.pools.encode(" " + word(self.rng))

    def _assemble(self, room: int, plants: list[Ids], tail: Ids, asked: list[bool]) -> tuple[Ids, list[bool]]:
        """Filler with the plants at random places, often at its ends, perhaps a head before it; then the tail, ``room`` tokens in all."""
        left = room - len(tail) - sum(map(len, plants))
        head = self.pools.heads[self._below(len(self.pools.heads))] if self.rng.random() < 0.4 else []
        head = head if len(head) <= left // 2 else []
        filler = self.source(left - len(head))
        places = sorted(self._below(len(filler) + 1) for _ in plants)
        if places:
            draw = self.rng.random()
            places[0] = 0 if draw < 0.15 else places[0]
            places[-1] = len(filler) if draw > 0.7 else places[-1]
        ids = [*head, *_planted(filler, places, plants)]
        return ids + tail, [False] * len(ids) + asked


def _planted(filler: Ids, places: list[int], plants: list[Ids]) -> Ids:
    """The filler with the plants at these places, which ascend."""
    ids: Ids = []
    start = 0
    for place, plant in zip(places, plants, strict=True):
        ids += filler[start:place] + plant
        start = place
    return ids + filler[start:]


def batch(
    pools: Pools, seed: list[int], tokens: int, count: int, mixture: Mapping[str, float]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """``count`` sequences of ``tokens`` ids and which ids are asked for; the same for the same arguments.

    Args:
        pools: what to write with.
        seed: of everything drawn.
        tokens: length of each sequence.
        count: number of sequences.
        mixture: share of each kind; they add up to 1.

    Returns:
        Two arrays ``[count, tokens]``.
    """
    rng = np.random.default_rng(seed)
    kinds, shares = list(mixture), list(mixture.values())
    written = [Writer(pools, rng, tokens).write(kinds[int(rng.choice(len(kinds), p=shares))]) for _ in range(count)]
    return np.array([ids for ids, _ in written]), np.array([asked for _, asked in written])
