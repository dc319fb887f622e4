"""What the reference model is trained on: every asked token can be known from what stands before it."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from transformers import PreTrainedTokenizerBase

from models.recipe.sequences import KINDS, Pools, Writer, batch, make_pools
from models.recipe.text import NEEDLES, TYPES_HEAD, invented_text, town_text, word
from models.recipe.tokenizer import train_tokenizer
from tasks.longbench.templates import TEMPLATES
from tasks.needle.haystack import SEED, builtin_text

ROOT = Path(__file__).parents[2]
MIXTURE = {kind: 1 / len(KINDS) for kind in KINDS}


@lru_cache(maxsize=1)
def made() -> tuple[PreTrainedTokenizerBase, Pools]:
    tokenizer = train_tokenizer(600, 4096, 3)
    return tokenizer, make_pools(tokenizer, 3, 40_000)


def test_the_same_arguments_give_the_same_batch_and_others_another() -> None:
    _, pools = made()
    ids, asked = batch(pools, [1, 5], 128, 4, MIXTURE)
    again, _ = batch(pools, [1, 5], 128, 4, MIXTURE)
    other, _ = batch(pools, [1, 6], 128, 4, MIXTURE)
    assert ids.shape == asked.shape == (4, 128)
    assert (ids == again).all() and (ids != other).any()


def test_the_recipe_draws_what_the_shipped_weights_were_trained_on() -> None:
    """The hash is of the sources that trained them; they were reworded and moved since."""
    OmegaConf.register_new_resolver("root", lambda *_: "", replace=True)
    recipe = OmegaConf.load(ROOT / "conf/train/tiny.yaml")
    tokenizer = train_tokenizer(recipe.model.vocabulary, recipe.model.positions, recipe.seed)
    digest = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode())  # type: ignore[attr-defined]
    pools = make_pools(tokenizer, recipe.seed, 40_000)
    for index, stage in enumerate(recipe.stages):
        ids, asked = batch(pools, [recipe.seed, 1000 + index], stage.tokens, 8, stage.mixture)
        digest.update(ids.tobytes())
        digest.update(asked.tobytes())
    assert digest.hexdigest() == "ba366f56addea1270cf25b7da45e69cf0a086fd1307edf8b1929ce5449aa2048"


@pytest.mark.parametrize("tokens", [64, 700])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_length_begins_once_and_asks_for_something(kind: str, tokens: int) -> None:
    _, pools = made()
    asked_in_all = 0
    for seed in range(60):
        ids, asked = Writer(pools, np.random.default_rng(seed), tokens).write(kind)
        assert len(ids) == len(asked) == tokens
        assert ids[0] == pools.begin and pools.begin not in ids[1:]
        asked_in_all += sum(asked)
    assert asked_in_all > 10


@pytest.mark.parametrize("kind", KINDS)
def test_asked_pieces_stand_before_they_are_asked_for(kind: str) -> None:
    _, pools = made()
    for seed in range(20):
        ids, asked = Writer(pools, np.random.default_rng(seed), 400).write(kind)
        start = 0
        while True in asked[start:]:
            begin = asked.index(True, start)
            end = next((place for place in range(begin, 400) if not asked[place]), 400)
            piece = ids[begin:end]
            earlier = [ids[place : place + len(piece)] for place in range(begin)]
            assert piece in earlier or (kind == "span" and piece[:-1] in earlier), (
                "a framed span ends with a line break of the question's"
            )
            start = end


def test_the_built_in_haystack_is_never_trained_on() -> None:
    with pytest.raises(ValueError, match="for evaluation"):
        town_text(SEED, 100)
    assert builtin_text()[:300] not in town_text(103, 400_000)


def test_invented_words_are_new_in_every_seed() -> None:
    one, other = (set(invented_text(np.random.default_rng(seed), 20_000).lower().split()) for seed in (1, 2))
    long_words = {word for word in one if len(word) > 7}
    assert len(long_words) > 100
    assert len(long_words & other) < 0.05 * len(long_words)


def test_words_begin_with_a_vowel_about_as_often_as_english_ones() -> None:
    rng = np.random.default_rng(0)
    words = [word(rng) for _ in range(2000)]
    assert all(words)
    assert 0.2 < sum(each[0] in "aeiou" for each in words) / len(words) < 0.4


def test_what_is_asked_for_often_stands_at_an_end_of_the_text_and_anywhere_else() -> None:
    _, pools = made()
    plant, tail = [5] * 4, [6] * 3
    behind, heads = 0, 0
    places = []
    for seed in range(300):
        ids, asked = Writer(pools, np.random.default_rng(seed), 400)._assemble(300, [plant], tail, [True] * 3)
        assert len(ids) == len(asked) == 300 and ids[-3:] == tail
        places.append(next(place for place in range(300) if ids[place : place + 4] == plant))
        behind += ids[-7:-3] == plant
        heads += any(ids[: len(head)] == list(head) for head in pools.heads)
    assert 0.2 < behind / 300 < 0.4
    assert 0.3 < heads / 300 < 0.6
    assert len({place // 30 for place in places}) == 10


def test_a_needle_stands_behind_a_sentence_or_at_an_end_of_the_prose_of_a_tasks_prompt() -> None:
    tokenizer, pools = made()
    texts = [
        tokenizer.decode(Writer(pools, np.random.default_rng(seed), 700).write("needle")[0][1:]) for seed in range(200)
    ]
    assert all(any(text.startswith(head) for head, *_ in NEEDLES) for text in texts)
    magic, _ = NEEDLES
    first = last = seen = 0
    for text in (text for text in texts if text.startswith(magic[0])):
        prose = text[len(magic[0]) : text.index(magic[2].partition("{key}")[0])]
        for found in re.finditer(r" One of the special magic numbers for [a-z]+-[a-z]+ is: \d{7}\.", prose):
            at_begin, at_end = found.start() == 0, found.end() == len(prose)
            assert at_begin or at_end or prose[: found.start()].endswith(".")
            first, last, seen = first + at_begin, last + at_end, seen + 1
    assert seen > 80 and 0.1 < first / seen < 0.5 and 0.15 < last / seen < 0.6


def test_of_many_needles_a_few_are_asked_for_and_only_the_key_tells_which() -> None:
    tokenizer, pools = made()
    magic, _ = NEEDLES
    shared = several = 0
    for seed in range(100):
        ids, asked = Writer(pools, np.random.default_rng(seed), 700).write("many")
        text = tokenizer.decode(ids[1:])
        if not text.startswith(magic[0]):
            continue
        found = re.findall(r" One of the special magic numbers for ([a-z]+-[a-z]+) is: (\d{7})\.", text)
        told = dict(found)
        assert len(told) == len(found)
        questions = re.findall(
            r"The special magic number for ([a-z]+-[a-z]+) mentioned in the provided text is (\d{7})\.", text
        )
        assert 1 <= len(questions) <= 4
        assert all(told[key] == number for key, number in questions)
        assert sum(asked) == sum(
            len(tokenizer.encode(f" {number}.", add_special_tokens=False)) for _, number in questions
        )
        several += len(told) > len(questions)
        firsts = [key.partition("-")[0] for key in told]
        shared += len(set(firsts)) < len(firsts)
    assert several > 10 and shared > 5


def test_short_facts_are_asked_for_by_their_keys_mostly_in_other_words_than_they_were_told_in() -> None:
    tokenizer, pools = made()
    other = paired = 0
    for seed in range(100):
        ids, asked = Writer(pools, np.random.default_rng(seed), 200).write("key")
        text = tokenizer.decode(ids[1:])
        answers = [
            tokenizer.decode([i for i, _ in run])
            for wanted, run in groupby(zip(ids, asked, strict=True), itemgetter(1))
            if wanted
        ]
        assert answers and all(re.fullmatch(r" \d{1,3}", answer) for answer in answers)
        told = dict(re.findall(r" for ([a-z-]+)(?: is:)? (\d+)\.", text))
        questions = re.findall(r" for ([a-z-]+) mentioned in the provided text is (\d+)\.", text)
        assert all(told[key] == number for key, number in questions)
        paired += len(questions)
        other += " mentioned in the provided text is" in text
    assert 50 < other < 95
    assert paired > 100


def test_the_prompts_that_are_trained_on_are_those_of_the_tasks() -> None:
    tasks = [OmegaConf.load(ROOT / f"conf/task/{name}.yaml") for name in ("needle_magic", "needle")]
    for task, (head, needle, question, answer) in zip(tasks, NEEDLES, strict=True):
        before, _, behind = task.prompt.partition("{context}")
        assert head == before
        if "{key}" in task.needle:
            asked = behind.replace("{question}", task.question)
        else:  # the sentence in two parts, of which the first is asked for
            key, value = " best thing to do in San Francisco", " eat a sandwich and sit in Dolores Park on a sunny day"
            needle, answer, question = (part.format(key=key, value=value) for part in (needle, answer, question))
            asked = behind.replace("{question}", task.question)
            assert task.answers[0] in answer
        assert (needle, question) == (task.needle, asked)
    assert TEMPLATES["trec"].startswith(TYPES_HEAD + "{context}")


def test_any_text_survives_the_tokenizer() -> None:
    tokenizer, _ = made()
    for text in ("naïve café — 北京 🦊\t\r\n", "\x00\x07", builtin_text()[:500]):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids) == text
    assert len(tokenizer.encode("1234567", add_special_tokens=False)) == 7, "digits are single tokens"
