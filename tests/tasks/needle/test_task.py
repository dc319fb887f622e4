"""The needle task: the published construction, exact on golden cases; scores; grids; refusals."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from harness.config.build import build
from harness.errors import ConfigError, DataError, KvgaugeError
from harness.task import Example, Task
from tasks.needle.context import haystack_tokens, insertion_point, read_haystack
from tasks.needle.grid import expand_depths, expand_lengths
from tasks.needle.haystack import builtin_text
from tasks.needle.task import Needle

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests/golden/needle"
CASES = json.loads((GOLDEN / "needle_cases.json").read_text())


class WordTokenizer:
    """The toy tokenizer of the golden cases: exact both ways, and "." is the only period."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.ids: dict[str, int] = {}
        self.encoded_characters = 0

    def encode(self, text: str, **_: object) -> list[int]:
        self.encoded_characters += len(text)
        for word in (found := re.findall(r"\n|[ ]?\w+|[^\w\s]|\s", text)):
            if word not in self.ids:
                self.ids[word] = len(self.words)
                self.words.append(word)
        return [self.ids[word] for word in found]

    def decode(self, ids: Iterable[int], **_: object) -> str:
        return "".join(self.words[i] for i in ids)


def toy() -> PreTrainedTokenizerBase:
    return cast("PreTrainedTokenizerBase", WordTokenizer())


@lru_cache(maxsize=1)
def byte_level() -> PreTrainedTokenizerFast:
    """A small byte-level BPE with an end token and a begin token, as Llama-3 has them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([builtin_text()[:60_000]], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", model_max_length=512)  # type: ignore[no-untyped-call]


def make(preset: str = "needle", /, **changes: Any) -> Needle:
    """The task of ``conf/task/<preset>.yaml`` with some knobs changed."""
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        config = compose(overrides=[f"+task={preset}", "+seed=42", "+model=tiny"])
    values = cast("dict[str, Any]", OmegaConf.to_container(config.task, resolve=True))
    return cast("Needle", build(values | changes))


def context_of(task: Needle, example: Example) -> str:
    assert isinstance(example.prompt, str)
    before, after = task.prompt.split("{context}")
    return example.prompt.removeprefix(before)[
        : len(example.prompt) - len(before) - len(after.replace("{question}", task.question))
    ]


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# --- the published construction


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda c: f"{c['context_length']}-{c['depth_percent']}")
def test_context_and_prompt_equal_the_published_construction(case: dict[str, Any]) -> None:
    length, depth = case["context_length"], case["depth_percent"]
    task = make(haystack=str(GOLDEN / "haystack"), lengths=[length], depths=[depth])
    (example,) = task.examples(toy())
    assert isinstance(example.prompt, str)
    assert sha256(context_of(task, example)) == case["context_sha256"]
    assert sha256(example.prompt) == case["prompt_sha256"]
    assert example.id == f"{length}-{depth}"
    assert example.group == {"length": length, "depth": depth}


def test_preset_holds_the_published_texts() -> None:
    task = make()
    assert task.needle == CASES["needle"]
    assert task.question == CASES["question"]
    prompt = task.prompt.replace("{question}", task.question).replace("{context}", "<<CONTEXT>>")
    assert prompt == CASES["prompt_format_example"]
    assert (task.reserve_tokens, task.max_new_tokens, task.min_new_tokens) == (CASES["buffer"], 30, 0)


def test_published_grid_is_71_lengths_by_10_depths_under_the_same_name_and_settings() -> None:
    task, small = make("needle_published"), make()
    lengths = CASES["context_lengths_llama3_example"]
    assert expand_lengths(task.lengths) == list(np.arange(lengths["s_len"], lengths["e_len"], lengths["step"]))
    assert expand_depths(task.depths) == CASES["depths_default"]
    assert (task.name, task.settings()) == (small.name, small.settings())


@given(length=st.integers(240, 2500), depth=st.floats(0, 100))
@settings(max_examples=60, deadline=None)
def test_needle_stands_whole_at_a_sentence_end_in_a_context_of_exactly_the_length_less_the_reserve(
    length: int, depth: float
) -> None:
    task, tokenizer = make_builtin(), toy()
    (example,) = task_with(task, length, depth).examples(tokenizer)
    context = context_of(task, example)
    assert context.count(task.needle) == 1
    assert len(tokenizer.encode(context)) == length - task.reserve_tokens
    before, after = context.split(task.needle)
    if depth == 100:
        assert after == ""
    else:
        assert before == "" or before.endswith(".")
        room = len(tokenizer.encode(before + after))
        assert len(tokenizer.encode(before)) <= room * depth / 100
    assert builtin_text().startswith(before + after)


@lru_cache(maxsize=1)
def make_builtin() -> Needle:
    return make()


def task_with(task: Needle, length: int, depth: float) -> Needle:
    return Needle(**{**vars(task), "lengths": [length], "depths": [depth]})


@given(
    context=st.lists(st.integers(0, 5), max_size=60), depth=st.floats(0, 100), periods=st.frozensets(st.integers(0, 5))
)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_insertion_point_is_the_last_sentence_end_at_or_before_the_depth(
    context: list[int], depth: float, periods: frozenset[int]
) -> None:
    point = insertion_point(context, depth, periods)
    limit = int(len(context) * (depth / 100))
    ends = [i for i in range(1, limit + 1) if context[i - 1] in periods]
    assert point == (len(context) if depth == 100 else max(ends, default=0))


@given(length=st.integers(1, 900))
@settings(max_examples=30, deadline=None)
def test_haystack_tokens_equal_those_of_the_whole_text_encoded_at_once(length: int) -> None:
    tokenizer, text = byte_level(), builtin_text()[:1500]
    everything = tokenizer.encode(text * 8, add_special_tokens=False)
    published = tokenizer.encode(cast("str", tokenizer.decode(everything[:length])), add_special_tokens=False)
    assert haystack_tokens(text, length, tokenizer) == published


def test_context_does_not_depend_on_the_other_lengths_and_depths() -> None:
    alone = make(lengths=[900], depths=[44]).examples(byte_level())
    among = make(lengths=[600, 900, 2000], depths=[0, 44, 100]).examples(byte_level())
    assert [example for example in among if example.id == "900-44"] == list(alone)


def test_haystack_is_encoded_only_as_far_as_needed_and_once_per_length() -> None:
    one, many = WordTokenizer(), WordTokenizer()
    make(lengths=[1000], depths=[50]).examples(cast("PreTrainedTokenizerBase", one))
    make(lengths=[1000], depths=[{"count": 11}]).examples(cast("PreTrainedTokenizerBase", many))
    assert one.encoded_characters < 15_000 < len(builtin_text())
    assert many.encoded_characters - one.encoded_characters < 2_000  # the needle again, not the haystack


def test_real_tokenizer_keeps_the_needle_whole_and_the_prompt_within_the_length() -> None:
    task, tokenizer = make(lengths=[700, 1500], depths=[{"count": 5}]), byte_level()
    examples = task.examples(tokenizer)
    assert [example.id for example in examples] == [
        f"{length}-{depth}" for length in (700, 1500) for depth in (0, 25, 50, 75, 100)
    ]
    for example in examples:
        assert isinstance(example.prompt, str)
        assert task.needle in example.prompt
        assert len(tokenizer.encode(example.prompt)) <= cast("int", example.group["length"])


def test_files_are_joined_in_the_order_of_their_names_and_hidden_ones_left_out(tmp_path: Path) -> None:
    for name, text in (("b.txt", "two. "), ("a.txt", "one. "), ("._a.txt", "hidden. "), ("c.md", "other. ")):
        (tmp_path / name).write_text(text)
    (example,) = make(haystack=str(tmp_path), lengths=[240], depths=[100]).examples(toy())
    assert "<book> one. two. one. two." in cast("str", example.prompt)


def test_a_byte_order_mark_is_no_part_of_the_haystack(tmp_path: Path) -> None:
    plain = write_haystack(tmp_path / "plain", {"a.txt": b"One. ", "b.txt": b"Two."})
    marked = write_haystack(tmp_path / "marked", {"a.txt": b"\xef\xbb\xbfOne. ", "b.txt": b"\xef\xbb\xbfTwo."})
    assert read_haystack(marked) == read_haystack(plain) == "One. Two."


def test_a_link_that_leads_nowhere_is_named_and_not_left_out(tmp_path: Path) -> None:
    haystack = write_haystack(tmp_path / "essays", {"a.txt": b"One. "})
    (tmp_path / "essays/b.txt").symlink_to(tmp_path / "gone.txt")
    with pytest.raises(DataError, match=r"b\.txt in task\.haystack=.* is a link that leads to no file: mend it"):
        read_haystack(haystack)


def test_empty_files_may_be_several(tmp_path: Path) -> None:
    haystack = write_haystack(tmp_path, {"a.txt": b"\n", "b.txt": b"\n", "c.txt": b"One."})
    assert read_haystack(haystack) == "\n\nOne."


def test_braces_in_the_haystack_and_the_needle_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A {question} about {context} and {value}. ")
    (example,) = make(haystack=str(tmp_path), needle="{odd} {0}", lengths=[240], depths=[100]).examples(toy())
    prompt = cast("str", example.prompt)
    assert "A {question} about {context} and {value}." in prompt
    assert "{odd} {0}" in prompt


def test_period_tokens_can_be_listed() -> None:
    tokenizer = toy()
    comma = tokenizer.encode(",")
    task = make(lengths=[900], depths=[50], period_tokens=comma)
    (example,) = task.examples(tokenizer)
    assert context_of(task, example).split(task.needle)[0].endswith(",")


def test_period_after_a_word_counts_where_it_is_another_token_than_a_period_alone() -> None:
    class SentencePieceLike(WordTokenizer):
        def encode(self, text: str, **_: object) -> list[int]:
            return [self.ids.setdefault("_.", 10_000)] if text == "." else super().encode(text)

    (example,) = make(lengths=[900], depths=[50]).examples(cast("PreTrainedTokenizerBase", SentencePieceLike()))
    assert cast("str", example.prompt).index("San Francisco") > 1000


# --- magic numbers


def test_magic_number_prompt_has_the_form_of_ruler() -> None:
    (example,) = make("needle_magic", lengths=[600], depths=[50]).examples(byte_level())
    prompt = cast("str", example.prompt)
    (value,) = example.references
    assert re.fullmatch(r"[1-9]\d{6}", value)
    found = re.search(r" One of the special magic numbers for ([a-z]+-[a-z]+) is: (\d+)\.", prompt)
    assert found is not None
    assert found[2] == value
    assert prompt.startswith(
        "A special magic number is hidden within the following text. Make sure to memorize it. "
        "I will quiz you about the number afterwards.\n"
    )
    assert prompt.endswith(
        f"\nWhat is the special magic number for {found[1]} mentioned in the provided text? "
        f"The special magic number for {found[1]} mentioned in the provided text is"
    )


def test_magic_numbers_are_drawn_by_cell_and_seed_whatever_else_is_asked_for() -> None:
    some = make("needle_magic", lengths=[600], depths=[50]).examples(toy())
    more = make("needle_magic", lengths=[500, 600], depths=[0, 50], samples=3).examples(toy())
    other = make("needle_magic", lengths=[600], depths=[50], seed=43).examples(toy())
    assert [example.id for example in more[-3:]] == ["600-50", "600-50-1", "600-50-2"]
    assert more[-3] == some[0]
    assert other[0].references != some[0].references
    assert len({example.references for example in more}) == len(more) == 12


def test_magic_number_is_scored_by_containment() -> None:
    task = make("needle_magic", lengths=[600], depths=[50])
    (example,) = task.examples(toy())
    (value,) = example.references
    assert task.score(example, f" {value}. That is all.")["contains_answer"] == 1
    assert task.score(example, " 12.")["contains_answer"] == 0
    full = re.search(r"One of the special.*?\.", cast("str", example.prompt))
    assert full is not None
    assert task.score(example, full[0])["rouge1_x10"] == pytest.approx(10)


# --- scores


EXAMPLE = Example("4000-44", "", ("eat a sandwich and sit in Dolores Park on a sunny day.",))


@pytest.mark.parametrize(
    "golden", json.loads((GOLDEN / "needle_scores.json").read_text()), ids=lambda g: g["response"][:16]
)
def test_scores_equal_the_published_code(golden: dict[str, Any]) -> None:
    scores = make().score(EXAMPLE, golden["response"])
    assert scores["rouge1_x10"] == golden["stored_score"]
    assert scores["word_overlap"] == golden["heatmap_score"]


@pytest.mark.parametrize(
    ("text", "contains"),
    [
        ("  EAT a sandwich and sit in dolores park on a sunny day.\n", 1.0),
        ("You should eat a sandwich and sit in Dolores Park on a sunny day. Then rest", 1.0),
        ("eat a sandwich and sit in Dolores Park on a sunny day", 1.0),
        ('He said: "Eat a sandwich and sit in Dolores Park on a sunny day!"', 1.0),
        ("eat a sandwich", 0.0),
    ],
)
def test_containment_ignores_case_and_what_stands_around(text: str, contains: float) -> None:
    assert make().score(EXAMPLE, text)["contains_answer"] == contains


@pytest.mark.parametrize(
    ("preset", "headline"),
    [
        ("needle", "contains_answer"),
        ("needle_magic", "contains_answer"),
        ("needle_many", "contains_answer"),
        ("needle_published", "word_overlap"),
        ("needle_published_mistral", "word_overlap"),
    ],
)
def test_the_headline_is_containment_but_for_the_published_grids(preset: str, headline: str) -> None:
    assert make(preset).metrics[0].name == headline


def test_garbage_has_a_containment_of_0_where_word_overlap_has_a_floor() -> None:
    garbage = "a man on a boat and a dog in a park sit in a row"
    scores = make().score(EXAMPLE, garbage)
    assert scores["contains_answer"] == 0
    assert scores["word_overlap"] == pytest.approx(6 / 11)


@pytest.mark.parametrize(
    ("preset", "overlap"), [("needle_magic", 1.0), ("needle_many", 1.0), ("needle_published", 0.0)]
)
@pytest.mark.parametrize("text", [" 7736863. That is all.", ' "7736863"', "7736863.Before breakfast", "(7736863)"])
def test_a_number_beside_punctuation_is_the_number_but_for_the_published_code(
    preset: str, overlap: float, text: str
) -> None:
    task = make(preset)
    scores = task.score(Example("600-50", "", ("7736863",)), text)
    assert list(scores) == [metric.name for metric in task.metrics]
    name = "word_overlap" if preset == "needle_published" else "plain_word_overlap"
    assert (scores["contains_answer"], scores[name]) == (1, overlap)


def test_an_answer_of_punctuation_alone_is_looked_for_as_it_is() -> None:
    task = make("needle_magic")
    scores = [task.score(Example("600-50", "", ("?!",)), text) for text in ("what ?!", "what")]
    assert [(each["contains_answer"], each["plain_word_overlap"]) for each in scores] == [(1, 1), (0, 0)]


@pytest.mark.parametrize("text", ["", " \n", None])
def test_empty_response_scores_0_everywhere(text: str | None) -> None:
    assert set(make().score(EXAMPLE, text).values()) == {0.0}


def test_several_answers_are_averaged() -> None:
    scores = make().score(Example("1-0", "", ("red fox", "blue")), "a Red fox")
    assert (scores["contains_answer"], scores["word_overlap"]) == (0.5, 0.5)


@given(text=st.text())
@settings(deadline=None)
def test_scores_stay_within_their_scales(text: str) -> None:
    task = make_builtin()
    scores = task.score(EXAMPLE, text)
    assert all(0 <= scores[metric.name] <= metric.maximum for metric in task.metrics)


@pytest.mark.parametrize("show", ["word_overlap", "rouge1_x10", "contains_answer"])
def test_metric_to_show_comes_first_and_changes_no_setting(show: str) -> None:
    task = make(show=show)
    assert task.metrics[0].name == show
    assert len(task.metrics) == 3
    assert list(task.score(EXAMPLE, "eat")) == [metric.name for metric in task.metrics]
    assert task.settings() == make().settings()


# --- the contract


def test_other_needles_stand_among_the_sentences_each_with_its_own_key_and_number() -> None:
    task = make("needle_many", lengths=[1500], depths=[0, 50, 100], samples=2)
    for example in task.examples(byte_level()):
        found = re.findall(r"One of the special magic numbers for ([a-z-]+) is: (\d{7})\.", example.prompt)
        assert len(found) == len({key for key, _ in found}) == 21
        (asked,) = re.findall(r"The special magic number for ([a-z-]+) mentioned", example.prompt)
        assert [value for key, value in found if key == asked] == list(example.references)
    places = []
    for example in task.examples(byte_level())[::2]:
        keys = re.findall(r"numbers for ([a-z-]+) is", example.prompt)
        (asked,) = re.findall(r"number for ([a-z-]+) mentioned in the provided text is", example.prompt)
        places.append(keys.index(asked))
    assert places[0] < places[1] < places[2] == 20


def test_other_needles_do_not_change_which_one_is_asked_for() -> None:
    one, many = (
        make(name, lengths=[1500], depths=[50]).examples(byte_level())[0] for name in ("needle_magic", "needle_many")
    )
    assert one.references == many.references
    assert make("needle_magic").settings() != make("needle_many").settings()


@pytest.mark.parametrize("preset", ["needle", "needle_magic", "needle_published"])
def test_presets_meet_the_task_contract(preset: str) -> None:
    task: Task = make(preset)
    assert task.needs_tokenizer
    assert task.heatmap_axes == ("length", "depth")
    assert json.loads(json.dumps(task.settings())) == task.settings()


@pytest.mark.parametrize(
    "override",
    [
        "lengths=[{from:600,to:700,step:100}]",
        "lengths=[600,700]",
        "lengths=600",
        "depths=[{count:3}]",
        "depths=[0,12.5]",
        "depths=50",
    ],
)
def test_grids_can_be_given_on_the_command_line(override: str) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        config = compose(overrides=["+task=needle", "+seed=42", "+model=tiny", f"task.{override}"])
    task = build(config.task)
    assert expand_lengths(task.lengths)
    assert expand_depths(task.depths)
    task.settings()


def test_settings_name_what_can_change_a_number_and_not_the_grid() -> None:
    base = make().settings()
    assert make(lengths=[500], depths=[3], seed=7).settings() == base
    changes: list[dict[str, Any]] = [
        {"needle": "x"},
        {"question": "x"},
        {"answers": ["x"]},
        {"prompt": "{context}"},
        {"haystack": str(GOLDEN / "haystack")},
        {"reserve_tokens": 150},
        {"period_tokens": [13]},
        {"max_new_tokens": 31},
        {"min_new_tokens": 1},
        {"stop_at_newline": False},
    ]
    assert all(make(**change).settings() != base for change in changes)
    assert make("needle_magic").settings() != make("needle_magic", seed=7).settings()
    assert make("needle_magic").settings() == make("needle_magic", samples=5).settings()


def test_haystack_counts_by_its_text_and_not_by_its_place(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{folder}.txt").write_text("The same text.")
    assert make(haystack=str(tmp_path / "one")).settings() == make(haystack=str(tmp_path / "two")).settings()


def test_newline_stops_the_published_needle_and_not_the_magic_one() -> None:
    tokenizer = byte_level()
    newline = tokenizer.encode("\n", add_special_tokens=False)[-1]
    end = frozenset({1, 9})
    assert make().stop_ids(tokenizer, end) == end | {newline}
    assert make("needle_magic").stop_ids(tokenizer, end) == end


def test_tokenizer_without_a_newline_is_refused() -> None:
    class Spaceless(WordTokenizer):
        def encode(self, text: str, **_: object) -> list[int]:
            return super().encode(text.strip())

    with pytest.raises(ConfigError, match="task.stop_at_newline=false"):
        make().stop_ids(cast("PreTrainedTokenizerBase", Spaceless()), frozenset())


# --- grids


def test_range_includes_its_end_as_the_published_arange_does() -> None:
    assert expand_lengths([{"from": 400, "to": 32000, "step": 400}]) == list(np.arange(400, 32001, 400))
    assert expand_lengths([{"from": 1000, "to": 1250, "step": 100}, 1100, 5]) == [1000, 1100, 1200, 5]
    assert expand_lengths({"from": 1, "to": 1, "step": 9}) == [1]


@pytest.mark.parametrize("count", range(1, 102))
def test_depth_count_equals_the_published_linspace(count: int) -> None:
    assert expand_depths([{"count": count}]) == list(np.round(np.linspace(0, 100, count)).astype(int))


def test_whole_depths_become_integers() -> None:
    assert [str(depth) for depth in expand_depths([0.0, 12.5, 100.0, 0])] == ["0", "12.5", "100"]


# --- refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": []}, "task.lengths is empty"),
        ({"lengths": None}, "task.lengths is empty"),
        ({"lengths": "4000"}, "task.lengths is '4000'"),
        ({"lengths": [0]}, "task.lengths is 0"),
        ({"lengths": [1000.5]}, "task.lengths is 1000.5"),
        ({"lengths": [True]}, "task.lengths is True"),
        ({"lengths": [{"from": 1}]}, "use {from: 1000"),
        ({"lengths": [{"from": 9, "to": 1, "step": 1}]}, "is empty"),
        ({"lengths": [{"from": 1, "to": 9, "step": 0}]}, "step in task.lengths is 0"),
        ({"lengths": [200]}, "use lengths of 225 or more"),
        ({"lengths": [4000, 224]}, "use lengths of 225 or more"),
        ({"depths": []}, "task.depths is empty"),
        ({"depths": [-1]}, "-1, which is not a percentage"),
        ({"depths": [100.5]}, "100.5, which is not a percentage"),
        ({"depths": [float("nan")]}, "nan, which is not a percentage"),
        ({"depths": ["half"]}, "'half', which is not a percentage"),
        ({"depths": [{"count": 0}]}, "count in task.depths is 0"),
        ({"depths": [{"count": 102}]}, "101 or less"),
        ({"depths": [{"number": 3}]}, "use {count: 10}"),
        ({"show": "accuracy"}, "use one of contains_answer, word_overlap, rouge1_x10"),
        ({"show": ["word_overlap"]}, "is not a metric"),
        ({"prompt": "Question: {question}"}, "put {context} where"),
        ({"prompt": None}, "task.prompt=None is not a text"),
        ({"needle": ""}, "task.needle='' is not a text"),
        ({"needle": 7}, "task.needle=7 is not a text"),
        ({"question": 7}, "task.question=7 is not a text"),
        ({"answers": []}, "task.answers=[] is not a list of texts"),
        ({"answers": "blue"}, "task.answers='blue' is not a list of texts"),
        ({"answers": ["  "]}, "is not a list of texts"),
        ({"samples": 0}, "task.samples is 0"),
        ({"distractors": -1}, "task.distractors is -1"),
        ({"distractors": 3}, "would repeat the same needle"),
        ({"samples": 2}, "would repeat the same example"),
        ({"reserve_tokens": -1}, "task.reserve_tokens is -1"),
        ({"max_new_tokens": 0}, "task.max_new_tokens is 0"),
        ({"min_new_tokens": 31}, "is above task.max_new_tokens=30"),
        ({"period_tokens": []}, "use null"),
        ({"period_tokens": "."}, "use null"),
        ({"period_tokens": [10**6]}, "set task.period_tokens"),
        ({"seed": None}, "task.seed=None is not a whole number"),
        ({"stop_at_newline": "yes"}, "neither true nor false"),
        ({"ignore_punctuation": 1}, "task.ignore_punctuation=1 is neither true nor false"),
        ({"haystack": 7}, "task.haystack=7 is not a text"),
    ],
)
def test_unusable_setting_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(**changes).examples(toy())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_unknown_metric_to_show_is_refused_where_metrics_are_read() -> None:
    with pytest.raises(ConfigError, match="is not a metric"):
        _ = make(show="accuracy").metrics


def test_model_without_a_tokenizer_is_refused() -> None:
    with pytest.raises(ConfigError, match="got no tokenizer"):
        make().examples(None)


def write_haystack(folder: Path, files: dict[str, bytes]) -> str:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return str(folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no .txt file"),
        ({"a.md": b"words."}, "holds no .txt file"),
        ({"a.txt": b""}, "holds no text"),
        ({"a.txt": b" \n", "b.txt": b"\t"}, "holds no text"),
        ({"a.txt": b"fine.", "b.txt": b"caf\xe9."}, "b.txt in task.haystack is not UTF-8 at byte 3"),
        ({"a.txt": b"One.", "b.txt": b"Two.", "c.txt": b"One."}, "hold the same text"),
        ({"a.txt": b"a" * 50}, "use a text of ordinary words"),
    ],
)
def test_unusable_haystack_is_refused_in_one_line(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    with pytest.raises(DataError) as caught:
        make(haystack=write_haystack(tmp_path, files)).examples(toy())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing", "file.txt", "nul\0l", "x" * 5000])
def test_haystack_that_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.txt").write_text("words.")
    task = make(haystack=f"{tmp_path}/{name}")
    for use in (task.settings, lambda: task.examples(toy())):
        with pytest.raises(DataError, match="task.haystack") as caught:
            use()
        assert len(str(caught.value)) < 400


def test_haystack_without_an_end_of_a_sentence_is_refused_unless_no_depth_needs_one(tmp_path: Path) -> None:
    haystack = write_haystack(tmp_path, {"a.txt": "春 眠 暁 を 覚 え ず 。 ".encode()})
    with pytest.raises(ConfigError, match="every needle would stand at depth 0"):
        make(haystack=haystack, lengths=[300]).examples(toy())
    assert len(make(haystack=haystack, lengths=[300], depths=[0, 100]).examples(toy())) == 2


@given(
    changes=st.dictionaries(
        st.sampled_from(
            [
                "lengths",
                "depths",
                "answers",
                "needle",
                "question",
                "prompt",
                "samples",
                "reserve_tokens",
                "period_tokens",
                "show",
            ]
        ),
        st.none()
        | st.booleans()
        | st.integers(-5, 400)
        | st.floats()
        | st.text(max_size=5)
        | st.lists(st.integers(-5, 400) | st.text(max_size=3)),
        max_size=3,
    )
)
@settings(max_examples=150, deadline=None)
def test_no_setting_raises_anything_but_a_kvgauge_error(changes: dict[str, Any]) -> None:
    task = Needle(**{**vars(make_builtin()), "lengths": [300], "depths": [50], **changes})
    try:
        task.examples(toy())
    except KvgaugeError as error:
        assert "\n" not in str(error)


def test_an_example_shows_its_needle_and_what_stands_around_it() -> None:
    task = task_with(make_builtin(), 1500, 50)
    (example,) = task.examples(toy())
    (passage,) = example.passages
    assert task.needle in passage and passage in example.prompt
    assert len(passage) == len(task.needle) + 400
