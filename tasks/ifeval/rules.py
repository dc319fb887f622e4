"""The rules of IFEval's 25 kinds of instruction: whether a text follows one.

The patterns, separators and phrases are those of instructions.py in
https://github.com/google-research/google-research/tree/master/instruction_following_eval (Apache-2.0), as they define
what is counted; ``RULES`` has the kinds by their published names. An argument is one of the record's.

Differs: ``letter_frequency`` counts whichever character the record names. The official code draws a random letter in
place of one outside a-z, so that its verdict on these is chance.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from tasks.ifeval.language import is_language, sentence_count, words_and_signs

_ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_FENCES = ("```json", "```Json", "```JSON", "```")
_WORD_ENDS = frozenset(".,?!'\"")
Rule = Callable[..., bool]


def _holds(count: int, relation: str, number: int) -> bool:
    """Whether a count is ``at least`` a number, or ``less than`` it."""
    return count >= number if relation == "at least" else count < number


def _parts(text: str, separator: str) -> list[str] | None:
    """The parts between separators, without empty ones at the ends; None if another one is empty."""
    parts = re.split(separator, text)
    inner = parts[1:-1]
    if any(not part.strip() for part in inner):
        return None
    return [part for part in parts if part.strip()]


def _keywords(text: str, keywords: list[str]) -> bool:
    return all(re.search(keyword, text, re.IGNORECASE) for keyword in keywords)


def _forbidden(text: str, forbidden_words: list[str]) -> bool:
    return not any(re.search(rf"\b{word}\b", text, re.IGNORECASE) for word in forbidden_words)


def _keyword_frequency(text: str, keyword: str, relation: str, frequency: int) -> bool:
    return _holds(len(re.findall(keyword, text, re.IGNORECASE)), relation, frequency)


def _letter_frequency(text: str, letter: str, let_relation: str, let_frequency: int) -> bool:
    return _holds(text.lower().count(letter.lower()), let_relation, let_frequency)


def _words(text: str, relation: str, num_words: int) -> bool:
    return _holds(len(re.findall(r"\w+", text)), relation, num_words)


def _sentences(text: str, relation: str, num_sentences: int) -> bool:
    return _holds(sentence_count(text), relation, num_sentences)


def _paragraphs(text: str, num_paragraphs: int) -> bool:
    parts = _parts(text, r"\s?\*\*\*\s?")
    return parts is not None and len(parts) == num_paragraphs


def _first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    paragraphs = text.split("\n\n")
    written = sum(bool(paragraph.strip()) for paragraph in paragraphs)
    # The n-th of all parts, the empty ones among them, as the official code counts.
    if nth_paragraph > written or not (paragraph := paragraphs[nth_paragraph - 1].strip()):
        return False
    word = ""
    for character in paragraph.split()[0].lstrip("'").lstrip('"'):
        if character in _WORD_ENDS:
            break
        word += character.lower()
    return written == num_paragraphs and word == first_word.lower()


def _placeholders(text: str, num_placeholders: int) -> bool:
    return len(re.findall(r"\[.*?\]", text)) >= num_placeholders


def _postscript(text: str, postscript_marker: str) -> bool:
    patterns = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return re.search(patterns.get(postscript_marker, postscript_marker.lower()), text.lower()) is not None


def _bullets(text: str, num_bullets: int) -> bool:
    stars = re.findall(r"^\s*\*[^\*].*$", text, re.MULTILINE)
    dashes = re.findall(r"^\s*-.*$", text, re.MULTILINE)
    return len(stars) + len(dashes) == num_bullets


def _constrained(text: str) -> bool:
    return any(answer in text for answer in _ANSWERS)


def _highlights(text: str, num_highlights: int) -> bool:
    single = [part for part in re.findall(r"\*[^\n\*]*\*", text) if part.strip("*").strip()]
    double = [part for part in re.findall(r"\*\*[^\n\*]*\*\*", text) if part[2:-2].strip()]
    return len(single) + len(double) >= num_highlights


def _sections(text: str, section_spliter: str, num_sections: int) -> bool:
    return len(re.split(rf"\s?{section_spliter}\s?\d+\s?", text)) - 1 >= num_sections


def _json(text: str) -> bool:
    inner = text.strip()
    for fence in _FENCES:
        inner = inner.removeprefix(fence)
    try:
        json.loads(inner.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _title(text: str) -> bool:
    return any(title.lstrip("<").rstrip(">").strip() for title in re.findall(r"<<[^\n]+>>", text))


def _two_responses(text: str) -> bool:
    parts = _parts(text, re.escape("******"))
    return parts is not None and len(parts) == 2 and parts[0].strip() != parts[1].strip()


def _repeats(text: str, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _ends(text: str, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _quoted(text: str) -> bool:
    inner = text.strip()
    return len(inner) > 1 and inner[0] == '"' and inner[-1] == '"'


def _capital_words(text: str, capital_relation: str, capital_frequency: int) -> bool:
    return _holds(sum(word.isupper() for word in words_and_signs(text)), capital_relation, capital_frequency)


def _upper(text: str) -> bool:
    return text.isupper() and is_language(text, "en")


def _lower(text: str) -> bool:
    return text.islower() and is_language(text, "en")


def _language(text: str, language: str) -> bool:
    return is_language(text, language)


def _no_comma(text: str) -> bool:
    return "," not in text


RULES: Mapping[str, tuple[Rule, Mapping[str, Any]]] = {
    "change_case:capital_word_frequency": (_capital_words, {"capital_relation": str, "capital_frequency": int}),
    "change_case:english_capital": (_upper, {}),
    "change_case:english_lowercase": (_lower, {}),
    "combination:repeat_prompt": (_repeats, {"prompt_to_repeat": str}),
    "combination:two_responses": (_two_responses, {}),
    "detectable_content:number_placeholders": (_placeholders, {"num_placeholders": int}),
    "detectable_content:postscript": (_postscript, {"postscript_marker": str}),
    "detectable_format:constrained_response": (_constrained, {}),
    "detectable_format:json_format": (_json, {}),
    "detectable_format:multiple_sections": (_sections, {"section_spliter": str, "num_sections": int}),
    "detectable_format:number_bullet_lists": (_bullets, {"num_bullets": int}),
    "detectable_format:number_highlighted_sections": (_highlights, {"num_highlights": int}),
    "detectable_format:title": (_title, {}),
    "keywords:existence": (_keywords, {"keywords": list[str]}),
    "keywords:forbidden_words": (_forbidden, {"forbidden_words": list[str]}),
    "keywords:frequency": (_keyword_frequency, {"keyword": str, "relation": str, "frequency": int}),
    "keywords:letter_frequency": (_letter_frequency, {"letter": str, "let_relation": str, "let_frequency": int}),
    "language:response_language": (_language, {"language": str}),
    "length_constraints:nth_paragraph_first_word": (
        _first_word,
        {"num_paragraphs": int, "nth_paragraph": int, "first_word": str},
    ),
    "length_constraints:number_paragraphs": (_paragraphs, {"num_paragraphs": int}),
    "length_constraints:number_sentences": (_sentences, {"relation": str, "num_sentences": int}),
    "length_constraints:number_words": (_words, {"relation": str, "num_words": int}),
    "punctuation:no_comma": (_no_comma, {}),
    "startend:end_checker": (_ends, {"end_phrase": str}),
    "startend:quotation": (_quoted, {}),
}
"""Each kind's rule, with the arguments that it takes besides the text and their types."""


def follows(text: str, kind: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a text, as it is, follows an instruction; an empty one follows none.

    Args:
        text: the text.
        kind: a key of ``RULES``.
        arguments: what the rule takes.
    """
    return bool(text.strip()) and RULES[kind][0](text, **arguments)


def follows_loosely(text: str, kind: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a text follows an instruction in one of eight forms.

    They are the whole text and the text without its first line, its last line or both ("Sure, here it is:"), each also
    without asterisks.
    """
    lines = text.split("\n")
    forms = [text, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return any(follows(form, kind, arguments) for form in [*forms, *(form.replace("*", "") for form in forms)])
