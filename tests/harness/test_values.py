"""Values that check themselves: what fits an annotation, and the one line that tells what does not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta

from harness.compression.selection import Selection
from harness.engine.settings import EngineSettings
from harness.errors import ConfigError
from harness.values import Count, Refusal, Size, check, choices, field_types, fits, made
from tests.conftest import ROOT

Colour = Literal["red", "green"]


@dataclass(frozen=True)
class Everything:
    """One field of each kind."""

    name: str
    least: Size
    optional: Count | None
    number: Annotated[float, Meta(ge=0)]
    on: bool
    colour: Colour | Literal["auto"]
    spread: Literal["auto"] | None
    texts: Sequence[str]
    more: Mapping[str, Any]
    own: Annotated[Size | Literal["auto"], Refusal("is no size", "use auto")]

    def __post_init__(self) -> None:
        check(self, "group", names={"least": "fewest"})


GOOD = {
    "name": "n", "least": 1, "optional": None, "number": 0, "on": False, "colour": "red", "spread": None, "texts": [],
    "more": {},
    "own": "auto",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, "group.name=3 is not a text: give it one"),
        ({"least": 0}, "group.fewest=0 is not a whole number of 1 or more: use one"),
        ({"least": True}, "group.fewest=True is not a whole number of 1 or more: use one"),
        ({"least": 2**60}, "group.fewest=1152921504606846976 is not a whole number of 1 or more: use one"),
        ({"optional": -1}, "group.optional=-1 is not a whole number of 0 or more: use one"),
        ({"number": float("nan")}, "group.number=nan is not a number of 0 or more: use one"),
        ({"on": 1}, "group.on=1 is neither true nor false: use one of them"),
        ({"colour": "blue"}, "group.colour=blue is unknown: use red, green or auto"),
        ({"colour": None}, "group.colour=None is unknown: use red, green or auto"),
        ({"spread": "wide"}, "group.spread=wide is unknown: use null or auto"),
        ({"texts": "ab"}, "group.texts=ab is not a list: use one"),
        ({"texts": [1]}, "group.texts=[1] is not a list: use one"),
        ({"more": []}, "group.more=[] is not a mapping: use one"),
        ({"own": 0}, "group.own=0 is no size: use auto"),
    ],
)
def test_a_value_that_does_not_fit_its_field_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Everything(**{**GOOD, **changes})


@pytest.mark.parametrize(
    "changes", [{}, {"optional": 0}, {"number": 0.5}, {"texts": ("a",)}, {"own": 7}, {"spread": "auto"}]
)
def test_a_value_that_fits_stays_as_it_is(changes: dict[str, Any]) -> None:
    for name, value in (GOOD | changes).items():
        assert getattr(Everything(**{**GOOD, **changes}), name) is value


def test_a_group_has_all_of_its_settings_and_no_others() -> None:
    assert made(Everything, GOOD, "group").name == "n"
    for wrong in ({**GOOD, "nam": 1}, {name: value for name, value in GOOD.items() if name != "on"}):
        with pytest.raises(
            ConfigError, match="^group is to have colour, least, more, .*, no more and no less, not (nam|on): --cfg job"
        ):
            made(Everything, wrong, "group")


def test_nothing_is_converted() -> None:
    assert not fits("1", int) and not fits(1.0, int) and not fits(True, float) and fits(1, float)


def test_the_readme_lists_the_choices_of_the_selection() -> None:
    (row,) = re.findall(r"^\| `selection` \| (.*) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert row.replace("\\|", "|").split() == [
        f"`{name}={'|'.join(choices(kind))}`" for name, kind in field_types(Selection).items()
    ]


def test_the_configuration_tells_of_the_choices_of_a_setting_above_it() -> None:
    text = (ROOT / "conf/config.yaml").read_text(encoding="utf-8")
    for kind in (Selection, EngineSettings):
        for name, annotation in field_types(kind).items():
            (above,) = re.findall(rf"((?:^  #.*\n)+)  {name}: (.*)\n", text, re.MULTILINE)
            assert all(re.search(rf"\b{choice}\b", " ".join(above)) for choice in choices(annotation)), name
