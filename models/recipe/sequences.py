"""Training sequences: something is planted in a filler, and the end of the sequence asks for it.

Loss falls on the tokens that are asked for, and on no others. Everything is drawn anew for every step. The kinds are:

- *echo*: a filler that keeps repeating pieces of itself.
- *span*: a span of text that is to be continued after its first words.
- *fact*: a value that belongs to a key.
- *phrase*: a sentence whose first part asks for its second.
- *label*: labels that the first tokens of a question decide.
- *question*: labels that the last words of a question decide.
- *form*: the same, with questions in a few forms that all labels share.
- *needle*: needles in prose, in the prompts of the needle tasks; *many*: many needles, a few of them asked for.
- *key*: short facts close together, which differ in nothing but the key.
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
    """Tokens of generated prose, from which fillers and spans are cut, and the wordings of questions."""

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
    """Make the pools; different seeds share no text.

    Args:
        tokenizer: the model's tokenizer.
        seed: seed of the texts.
        characters: length of each kind of prose; that of letters has half of it.
    """

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
        """Choose the source of fillers.

        Args:
            pools: what to write from.
            rng: source of randomness.
            tokens: length of the sequence.
        """
        self.pools, self.rng, self.tokens = pools, rng, tokens
        self.source = self._source()

    def write(self, kind: str) -> tuple[Ids, list[bool]]:
        """Write a sequence of a kind.

        Returns:
            Its ids, which begin with ``<s>``, and for each whether it is asked for.
        """
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
        """A whole number from ``low`` to ``high``, uniform in its logarithm."""
        return min(high, int(low * (high / low + 1 / low) ** self.rng.random())) if high > low else low

    def _source(self) -> Callable[[int], Ids]:
        """A source of fillers: random tokens, a small random language, prose of the town or of invented words."""
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
        """Half filler, then pieces of everything before, each asked for after its first tokens."""
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
        """A few spans, from the filler's source or another, each asked for after its first words, perhaps a joiner."""
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
        """Keys with numbers.

        They are mostly stated and asked for in different words, so that the key alone leads to its number.
        """
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
        """Sentences that are asked for by their first part, like the needle of the standard test."""
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
        """Facts of one wording, of which one to all are asked for, with or without the words that end them."""
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
        """Questions with labels, which the first words decide; a label is asked for if its class came before."""
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
        """Questions with types in words, which the last word of a question, or the last two, decide."""
        wording, types = self._types(lambda: self._between(2, 14))
        most = self._between(2, 12)
        return self._classify(room, wording, types, lambda: self._words(1, most))

    def _form(self, room: int) -> tuple[Ids, list[bool]]:
        """The same with few forms and names, mostly after a head.

        All types share the forms and names, so that the last words alone decide.
        """
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
        """Draw the types of questions.

        Args:
            count: draws the number of types.
            make: makes a word.

        Returns:
            A wording of questions and labels, and for each type the end of its questions and its name.
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
        """Questions with their types until the room is full; a type is asked for if it came before."""
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
        """Many needles, of which up to four are asked for; keys of numbers share words."""
        return self._needle(room, many=True)

    def _needle(self, room: int, many: bool = False) -> tuple[Ids, list[bool]]:
        """Needles of one task and their questions; they follow ends of sentences, and often come first or last."""
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
        """The beginning of a class's questions: one word, or two, of which another class may share the first."""
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
        """How many things to plant: one in three tenths of the sequences, else up to as many as fit."""
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
        """A source of keys: random tokens, or two words, of which another key may share one."""
        if self.rng.random() < 0.5:
            return lambda: self._random(1, 4)
        pair = self._pairs(word, 2, 30)
        dash = "-" if self.rng.random() < 0.7 else " "
        return lambda: self.pools.encode(pair(dash))

    def _pairs(self, make: _Make, least: int, most: int) -> Callable[[str], str]:
        """A source of two words with something between; another pair may share one of them."""
        firsts, seconds = ([make(self.rng) for _ in range(self._between(least, most))] for _ in range(2))
        return lambda between: f"{firsts[self._below(len(firsts))]}{between}{seconds[self._below(len(seconds))]}"

    def _words(self, least: int, most: int) -> Ids:
        """Common small words and invented ones, a space before each."""
        return self.pools.encode(self._word_text(least, most))

    def _maker(self) -> _Make:
        """A way to make words: of syllables, or of letters in any order."""
        return letters if self.rng.random() < 0.5 else word

    def _word_text(self, least: int, most: int, make: _Make = word) -> str:
        chosen = [
            SMALL_WORDS[self._below(len(SMALL_WORDS))] if self.rng.random() < 0.4 else make(self.rng)
            for _ in range(self._between(least, most))
        ]
        chosen = [part.capitalize() if self.rng.random() < 0.15 else part for part in chosen]
        return "".join(f" {part}" for part in chosen)

    def _values(self) -> Callable[[], Ids]:
        """A source of values: numbers of up to twelve digits, random tokens, or invented words."""
        draw = self.rng.random()
        if draw < 0.5:
            digits = 7 if draw < 0.25 else 1 + self._below(12)
            return lambda: self.pools.encode(" " + "".join(str(self._below(10)) for _ in range(digits)))
        if draw < 0.8:
            return lambda: self._random(1, 6)
        return lambda: self.pools.encode(" " + word(self.rng))

    def _assemble(self, room: int, plants: list[Ids], tail: Ids, asked: list[bool]) -> tuple[Ids, list[bool]]:
        """Filler with the plants at random places, often at its ends, then the tail: ``room`` tokens in all.

        Some sequences begin with a head.
        """
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
    """The filler with the plants inserted at these indices, which ascend."""
    ids: Ids = []
    start = 0
    for place, plant in zip(places, plants, strict=True):
        ids += filler[start:place] + plant
        start = place
    return ids + filler[start:]


def batch(
    pools: Pools, seed: list[int], tokens: int, count: int, mixture: Mapping[str, float]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Write a batch of sequences, which is the same for the same arguments.

    Args:
        pools: what to write from.
        seed: seed of everything that is drawn.
        tokens: length of each sequence.
        count: number of sequences.
        mixture: share of each kind; the shares add up to 1.

    Returns:
        Two arrays [count, tokens]: token ids, and whether each is asked for.
    """
    rng = np.random.default_rng(seed)
    kinds, shares = list(mixture), list(mixture.values())
    written = [Writer(pools, rng, tokens).write(kinds[int(rng.choice(len(kinds), p=shares))]) for _ in range(count)]
    return np.array([ids for ids, _ in written]), np.array([asked for _, asked in written])
