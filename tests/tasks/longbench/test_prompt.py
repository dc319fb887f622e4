"""LongBench's prompts: byte for byte, cut in the middle by the official rule, wrapped as they are; with three kinds of
tokenizers."""

from __future__ import annotations

import hashlib
import json
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from harness.errors import ConfigError
from harness.text import clean_up_spaces, decode
from tasks.longbench.templates import MAX_NEW_TOKENS, NO_CHAT, TEMPLATES, fill
from tasks.needle.haystack import builtin_text
from tasks.prompting import Frame, chat_frame, cleans_up, fit

ROOT = Path(__file__).parents[3]
PROTOCOL = ROOT.parent / "shared/golden/protocol.json"
# Hashes of the templates and of the templates filled with "CTX" and "INP", first 16 digits, from golden/protocol.json.
HASHES: dict[str, tuple[str, str]] = {
    "narrativeqa": ("aada7ed24b06abac", "bb4dacf470328f21"),
    "qasper": ("0fbdd123fe7f83d6", "968a1766c851934b"),
    "multifieldqa_en": ("20b4666a2de8a1f7", "796218ccfc566d21"),
    "multifieldqa_zh": ("344b3a4e557cd547", "4c67a46687ea6e3a"),
    "hotpotqa": ("9ec4ae308865bd0c", "9d75a99e6618fa29"),
    "2wikimqa": ("9ec4ae308865bd0c", "9d75a99e6618fa29"),
    "musique": ("9ec4ae308865bd0c", "9d75a99e6618fa29"),
    "dureader": ("ae53329f51b17908", "f167dcfc2cfca419"),
    "gov_report": ("91c25d585b189ced", "301e273ac6195493"),
    "qmsum": ("dca23b678fe0183b", "7496f09d476be208"),
    "multi_news": ("2af3f28c40b902e6", "578de8f2d244dbba"),
    "vcsum": ("3e5d8241bc9b512e", "a5bb3fafbac53903"),
    "trec": ("0eff8bebdba99d91", "dbd6cdc75f05e7b1"),
    "triviaqa": ("00a802e6377e72fc", "19c37c6e1311b93f"),
    "samsum": ("a68d884234907eef", "9533d391baf0e3ba"),
    "lsht": ("f3edabdf7fae53d6", "14bd1f2ac14bfdca"),
    "passage_count": ("986550b6c61009c6", "6ba8f8e92e68c98b"),
    "passage_retrieval_en": ("39b96b7fa52bdd2a", "fc2ee6dca8601d85"),
    "passage_retrieval_zh": ("c1e2346e245eb365", "533d91e9984837a6"),
    "lcc": ("6a1f24cf0bb83cd9", "32ad377cf6d8c73c"),
    "repobench-p": ("ee9ec182ea5ffeb7", "a68da476c6c8a9c7"),
}
CHINESE = "阅读以下文字并用中文简短回答：问题。段落一二三四五六七八九十，会议记录。"
SPECIAL = ["<s>", "</s>", "<unk>", "<|user|>", "<|end|>"]
KINDS = ["byte_level", "sentencepiece", "words"]


@lru_cache(maxsize=3)
def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """A small tokenizer that begins every text with <s>."""
    texts = [builtin_text()[:40_000], CHINESE * 20, "\n\nQuestion: {x}\nAnswer:\t"]
    if kind == "byte_level":  # as Llama-3 and Qwen
        built = Tokenizer(models.BPE())
        built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        built.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer: Any = trainers.BpeTrainer(
            vocab_size=900, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
        )
    elif kind == "sentencepiece":  # as Llama-2 and Mistral: a space before the text, lost spaces in decoding
        built = Tokenizer(models.Unigram())
        built.normalizer = normalizers.NFKC()
        built.pre_tokenizer = pre_tokenizers.Metaspace()
        built.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=800, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
        )
    else:  # loses white space and unknown words
        built = Tokenizer(models.WordLevel(unk_token="<unk>"))
        built.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordLevelTrainer(vocab_size=2000, special_tokens=SPECIAL, show_progress=False)
    built.train_from_iterator(texts, trainer)
    begin = built.token_to_id("<s>")
    built.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", begin)]
    )
    made = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=built, bos_token="<s>", eos_token="</s>", unk_token="<unk>", model_max_length=64
    )
    made.chat_template = (
        "{{ bos_token }}{% for m in messages %}<|user|>\n{{ m['content'] | trim }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}{{ 'A:' if short else '\nAnswer:\n' }}{% endif %}"
    )
    return made


# --- templates


@pytest.mark.parametrize("dataset", TEMPLATES)
def test_prompt_equals_the_published_bytes(dataset: str) -> None:
    found = [
        hashlib.sha256(text.encode()).hexdigest()[:16] for text in (TEMPLATES[dataset], fill(dataset, "CTX", "INP"))
    ]
    assert tuple(found) == HASHES[dataset]


@pytest.mark.skipif(not PROTOCOL.is_file(), reason="no ../shared")
def test_prompts_and_limits_equal_the_whole_protocol_file() -> None:
    protocol = json.loads(PROTOCOL.read_text(encoding="utf-8"))["longbench"]
    assert list(TEMPLATES) == list(protocol["prompts"])
    for dataset, golden in protocol["prompts"].items():
        assert fill(dataset, "<<CTX>>", "<<INP>>") == golden["formatted"]
        assert hashlib.sha256(TEMPLATES[dataset].encode()).hexdigest() == golden["sha256_template"]
        assert HASHES[dataset] == (golden["sha256_template"][:16], golden["sha256_formatted_CTX_INP"][:16])
    assert dict(MAX_NEW_TOKENS) == protocol["dataset2maxlen"]
    assert sorted(NO_CHAT) == sorted(protocol["datasets_no_chat"])


def test_braces_in_a_record_stay_what_they_are() -> None:
    assert (
        fill("lcc", "int main() { {input} {0} }", "x")
        == "Please complete the code given below. \nint main() { {input} {0} }Next line of code:\n"
    )
    assert fill("repobench-p_e", "{context}", "{input}").split("\n")[1] == "{context}{input}Next line of code:"


# --- truncation

PIECES = [
    *(builtin_text()[i : i + 40] for i in range(0, 4000, 400)), CHINESE, "\n\n", "  ", "\t", "</s>", "<s>",
    "x = {y}\n", "ﬁ é 😀", "didn 't .",
]  # fmt: skip
RECORDS = st.lists(st.sampled_from(PIECES) | st.text(max_size=12), max_size=25).map("".join)


def official(prompt: str, kind: str, max_length: int) -> str:
    """The rule of pred.py, on the tensors it uses."""
    made = tokenizer(kind)
    ids = made(prompt, truncation=False, return_tensors="pt").input_ids[0]
    if ids.shape[0] <= max_length:
        return prompt
    half = int(max_length / 2)
    ends = [made.decode(part, skip_special_tokens=True) for part in (ids[:half], ids[-half:])]
    return str("".join(ends))


@pytest.mark.parametrize("kind", KINDS)
@given(context=RECORDS, question=RECORDS, max_tokens=st.integers(2, 300), dataset=st.sampled_from(list(TEMPLATES)))
@settings(max_examples=150, deadline=None)
def test_truncation_equals_the_official_rule_on_random_records(
    kind: str, context: str, question: str, max_tokens: int, dataset: str
) -> None:
    text = fill(dataset, context, question)
    kept = official(text, kind, max_tokens)
    fitted = fit(text, tokenizer(kind), max_tokens, None)
    assert list(fitted.ids) == tokenizer(kind)(kept).input_ids
    assert fitted.tokens_before_truncation == len(tokenizer(kind)(text).input_ids)


@pytest.mark.parametrize("kind", KINDS)
def test_long_prompt_keeps_both_ends_and_no_more_than_the_limit(kind: str) -> None:
    text = " ".join(builtin_text().split()[:400])
    whole = tokenizer(kind).encode(text)
    for max_tokens in (100, 101):
        fitted = fit(text, tokenizer(kind), max_tokens, None)
        assert fitted.tokens_before_truncation == len(whole) > 300
        assert list(fitted.ids[:40]) == whole[:40]
        assert list(fitted.ids[-40:]) == whole[-40:]
        assert 95 <= len(fitted.ids) <= 103
        assert fitted.ids.count(tokenizer(kind).bos_token_id) == 1


# --- the clean-up of spaces

CLEANED = json.loads((ROOT / "tests/golden/clean_up.json").read_text(encoding="utf-8"))


def flagged(kind: str, published: bool) -> PreTrainedTokenizerFast:
    """A tokenizer whose files ask for the clean-up, read by the transformers of the published runs or by today's."""
    made = deepcopy(tokenizer(kind))
    made.clean_up_tokenization_spaces = True
    made.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = published
    return made


@pytest.mark.parametrize("case", CLEANED["texts"])
def test_the_clean_up_is_the_documented_one(case: dict[str, str]) -> None:
    assert clean_up_spaces(case["text"]) == case["cleaned"]


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
@pytest.mark.parametrize("max_tokens", [20, 31, 60])
def test_a_prompt_that_is_cut_has_the_published_bytes_whatever_transformers_is_installed(
    kind: str, max_tokens: int
) -> None:
    text = CLEANED["prompt"]
    old = flagged(kind, published=True)
    ids = old.encode(text)
    half = max_tokens // 2
    published = "".join(old.decode(part, skip_special_tokens=True) for part in (ids[:half], ids[-half:]))
    assert published.startswith("The lamp was lit, ") and "lit ," in text
    for made in (old, flagged(kind, published=False)):
        assert cleans_up("tokenizer", made) is True
        fitted = fit(text, made, max_tokens, None, cleans_up("tokenizer", made))
        assert list(fitted.ids) == old.encode(published)


def test_a_cut_prompt_is_the_golden_one() -> None:
    made = flagged("byte_level", published=False)
    for how, golden in CLEANED["cut_to_60"].items():
        fitted = fit(CLEANED["prompt"], made, 60, None, cleans_up(how, made))
        assert made.decode(fitted.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == golden


def test_a_tokenizer_that_does_not_ask_for_it_keeps_its_spaces() -> None:
    made = tokenizer("byte_level")
    assert cleans_up("tokenizer", made) is False and cleans_up("never", made) is False
    assert cleans_up("installed", made) is None and cleans_up("always", made) is True
    ids = made.encode("x = [1 , 2 .", add_special_tokens=False)
    assert decode(made, ids, False) == decode(made, ids, None) == "x = [1 , 2 ."
    assert decode(made, ids, True) == "x = [1, 2."


def test_prompt_of_exactly_the_limit_is_kept_whole() -> None:
    text = builtin_text()[:500]
    made = tokenizer("byte_level")
    whole = made.encode(text)
    assert list(fit(text, made, len(whole), None).ids) == whole
    assert list(fit(text, made, len(whole) - 1, None).ids) != whole


def test_special_tokens_of_the_text_are_lost_in_a_cut_and_only_there() -> None:
    text = "</s> " + builtin_text()[:400]
    made = tokenizer("byte_level")
    end = made.eos_token_id
    assert end in fit(text, made, 500, None).ids
    assert end not in fit(text, made, 40, None).ids


# --- chat


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_tokens", [60, 10_000])
def test_chat_template_goes_around_the_truncated_prompt_and_is_not_counted(kind: str, max_tokens: int) -> None:
    made = tokenizer(kind)
    frame = chat_frame(made, {})
    text = fill("passage_count", builtin_text()[:800], "")
    fitted = fit(text, made, max_tokens, frame)
    kept = official(text, kind, max_tokens)
    assert list(fitted.ids) == made.encode(f"<s><|user|>\n{kept}<|end|>\nAnswer:\n", add_special_tokens=False)
    assert fitted.tokens_before_truncation == len(made.encode(text))
    assert fitted.ids.count(made.bos_token_id) == 1


def test_template_that_strips_does_not_take_the_space_that_a_prompt_ends_in() -> None:
    frame = chat_frame(tokenizer("byte_level"), {})
    assert frame == Frame("<s><|user|>\n", "<|end|>\nAnswer:\n")
    text = fill("passage_retrieval_en", "context", "question")
    ids = fit(text, tokenizer("byte_level"), 10_000, frame).ids
    assert "The answer is: <|end|>" in str(tokenizer("byte_level").decode(list(ids)))


def test_llama_3_prompts_are_those_that_the_published_code_writes_by_hand() -> None:
    made = tokenizer("byte_level")
    template, begin = made.chat_template, made.bos_token
    # The published template of Llama-3 in its own words: header, stripped content, end of turn.
    header = "'<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n'"
    try:
        made.chat_template = (
            "{% for m in messages %}{% set c = " + header + " + m['content'] | trim + '<|eot_id|>' %}"
            "{% if loop.index0 == 0 %}{% set c = bos_token + c %}{% endif %}{{ c }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
        )
        frame = chat_frame(made, {})
    finally:
        made.chat_template = template
    assert f"{frame.before}X{frame.after}".replace(begin, "<|begin_of_text|>", 1) == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nX<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_arguments_reach_the_template() -> None:
    assert chat_frame(tokenizer("byte_level"), {"short": True}).after == "<|end|>A:"


GRANITE = "Today's Date: {{ strftime_now('%B %d, %Y') }}.{{ messages[0]['content'] }}"
LLAMA31 = (
    "{% if not date_string is defined %}{% if strftime_now is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}"
    "{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}{{ date_string }}{{ messages[0]['content'] }}"
)


@pytest.mark.parametrize(
    ("template", "arguments", "before"),
    [
        (GRANITE, {}, "Today's Date: July 26, 2024."),
        (GRANITE, {"strftime_now": "2026-01-31"}, "Today's Date: January 31, 2026."),
        (LLAMA31, {}, "26 Jul 2024"),
        (
            "\n{{ strftime_now('%-d/%m/%y %A %j %H:%M') }}{{ messages[0]['content'] }}",
            {},
            "\n26/07/24 Friday 208 00:00",
        ),
        (LLAMA31, {"date_string": "1 May 2025"}, "1 May 2025"),
    ],
)
def test_a_template_that_asks_for_todays_date_gets_the_same_day_whatever_the_day(
    template: str, arguments: dict[str, Any], before: str
) -> None:
    made = tokenizer("byte_level")
    former = made.chat_template
    try:
        made.chat_template = template
        assert chat_frame(made, arguments).before == before
    finally:
        made.chat_template = former


@pytest.mark.parametrize(
    ("template", "arguments", "message"),
    [
        (None, {}, "the tokenizer has no chat template: use task.chat=false"),
        ("{{ 1 / 0 }}", {}, "chat template fails (division by zero): use task.chat=false"),
        ("{{ [].x.y }}", {}, "chat template fails"),
        ("{% for i in range(10**9) %}x{% endfor %}", {}, "chat template fails"),
        ("{{ messages[0]['content'] }}{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", {}, "chat template fails"),
        ("{{ messages[0]['content'] }}", {"strftime_now": "yesterday"}, "strftime_now='yesterday' is no day: use one"),
        (
            "{{ messages[0]['content'] }}",
            {"strftime_now": 20240726},
            "strftime_now=20240726 is no day: use one",
        ),
        ("{{ raise_exception('no users\nhere') }}", {}, "chat template fails (no users here): use task.chat=false"),
        ("{{ messages[0]['content'] | upper }}", {}, "writes the message 0 times"),
        ("{{ messages[0]['content'] }}{{ messages[0]['content'] }}", {}, "writes the message 2 times"),
        ("{{ messages[0]['content'] }", {}, "chat template fails"),
        ("{{ messages[0]['content'] }}", {"tokenize": True}, "other task.chat_arguments"),
    ],
)
def test_unusable_chat_template_is_refused_in_one_line(
    template: str | None, arguments: dict[str, Any], message: str
) -> None:
    made = tokenizer("byte_level")
    before = made.chat_template
    try:
        made.chat_template = template
        with pytest.raises(ConfigError) as caught:
            chat_frame(made, arguments)
    finally:
        made.chat_template = before
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
