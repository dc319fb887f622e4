"""The score of one answer, 0-1, by L-Eval's rules.

Facts: ``Evaluation`` of https://github.com/OpenLMLab/LEval at cd34b05 (GPL-3.0); no code of it is here. Published
scores are 100 times the means.

Differs:
    - Summaries are scored by rougeL alone, one of the three of which L-Eval also prints the geometric mean.
    - ``sci_fi`` is scored by what the document says alone. L-Eval asks each question a second time, without the
      document, for what is so in fact.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping

from tasks.scores.rouge_l import rouge_score_f
from tasks.scores.text import qa_f1

KIND_OF: Mapping[str, str] = {
    "coursera": "choices",
    "quality": "choice",
    "tpo": "choice",
    "gsm100": "number",
    "topic_retrieval_longchat": "contained",
    "sci_fi": "judged",
    "financial_qa": "f1",
    "legal_contract_qa": "f1",
    "multidoc_qa": "f1",
    "narrative_qa": "f1",
    "natural_question": "f1",
    "scientific_qa": "f1",
    "gov_report_summ": "rouge_l",
    "meeting_summ": "rouge_l",
    "news_summ": "rouge_l",
    "paper_assistant": "rouge_l",
    "patent_summ": "rouge_l",
    "review_summ": "rouge_l",
    "tv_show_summ": "rouge_l",
}
"""How each dataset is scored; ``codeU`` is left out."""
TITLES = {"f1": "F1", "rouge_l": "rougeL (rouge-score)"}
"""Titles of the metrics that are no accuracy."""
_LETTERS = "ABCD"
_RUN = re.compile("[A-D]+")
_OPTION = re.compile(r"\s*[A-Z](?=[\s.)])")
_ANSWER = re.compile(r"The answer is (\S+)")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def score(dataset: str, prediction: str, reference: str) -> float:
    """The score of a prediction.

    Args:
        dataset: a key of ``KIND_OF``.
        prediction: the generated text, unchanged.
        reference: the record's output.
    """
    kind = KIND_OF[dataset]
    match kind:
        case "choice" | "choices":
            return exact_match(chosen(prediction, several=kind == "choices"), right_choice(reference))
        case "number":
            return exact_match(number(prediction), number(reference))
        case "judged":
            right = judged(reference.lower().partition("[fact:")[0])
            return float(right is not None and judged(prediction) == right)
        case "contained":
            return exact_match(prediction, reference)
        case "f1":
            return qa_f1(prediction, reference)
    return rouge_score_f(prediction, reference)["rougeL"]


def chosen(prediction: str, several: bool) -> str:
    """The letters that a prediction chooses; "None" for an empty one, and "A" where no letter is named.

    Args:
        prediction: the generated text.
        several: whether there can be more than one.
    """
    if not prediction.strip():
        return "None"
    if prediction in _LETTERS:
        return prediction
    run = _RUN.search(prediction)
    if run and not several:
        return run[0][0]
    first = run[0] if run and not run.start() else ""
    if len(first) > 1:
        return _sorted(first)
    rest = prediction[len(first) :].partition("Question")[0]
    named = _sorted(first + "".join(option for option in _OPTION.findall(rest) if option.strip() in _LETTERS))
    if named:
        return named
    run = _RUN.search(rest)
    return run[0] if run else "A"


def right_choice(reference: str) -> str:
    """The letters in the first word of a reference; "A" if there is none."""
    return "".join(letter for letter in (reference.split() or [""])[0] if letter in _LETTERS) or "A"


def number(text: str) -> str:
    """The digits of the number that a text answers with, up to a decimal point; "" if there is none.

    It is what follows "The answer is", else the last word with a digit of the first paragraph.
    """
    found = _ANSWER.search(text)
    words = [found[1]] if found else text.partition("\n\n")[0].split(" ")
    last = next((word for word in reversed(words) if any(letter.isdigit() for letter in word)), "")
    return "".join(letter for letter in last.partition(".")[0] if letter.isdigit())


def judged(text: str) -> str | None:
    """Whether a text says true or false first, in any word; None if it says neither."""
    words = (("true" in word, "false" in word) for word in text.lower().split())
    return next(("true" if true else "false" for true, false in words if true or false), None)


def exact_match(prediction: str, reference: str) -> float:
    """L-Eval's exact match: 1 for the same letters and 0.25 for some of them; else equal numbers, or containment.

    Args:
        prediction: letters, a number or a text; of a text, the first line of two characters or more counts.
        reference: what it is compared with.
    """
    wanted = _normal(reference)
    if all(letter in _LETTERS for letter in wanted):
        given = _normal(prediction)
        return 1.0 if given == wanted else 0.25 if set(given) <= set(wanted) else 0.0
    try:
        return float(float(prediction) == float(reference))
    except ValueError:
        line = next((line for line in prediction.split("\n") if len(line) > 1), prediction)
        return float(reference.lower().replace(" ", "") in line.lower().replace(" ", ""))


def _normal(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text.translate(_NO_PUNCTUATION)).split())


def _sorted(letters: str) -> str:
    return "".join(sorted({letter for letter in letters if letter in _LETTERS}))
