"""The pages on methods say what the methods' files say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SECTIONS = {
    name: text
    for page in sorted((ROOT / "docs/methods").glob("*.md"))
    for name, text in re.findall(r"^## ([a-z]\w*)\n(.*?)(?=^## |\Z)", page.read_text(encoding="utf-8"), re.M | re.S)
}


def test_there_are_sections() -> None:
    assert {"knorm", "tova", "compactor", "nacl"} <= set(SECTIONS)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_names_every_knob_with_its_value_and_the_paper(name: str) -> None:
    section, path = SECTIONS[name], ROOT / f"conf/method/{name}.yaml"
    text = path.read_text(encoding="utf-8")
    for knob in yaml.safe_load(text):
        if knob not in ("_target_", "label"):
            written = next(line for line in text.splitlines() if line.startswith(f"{knob}:")).partition(": ")[2]
            assert f"`{knob}` {written}" in section
    papers = set(re.findall(r"arXiv:(\d{4}\.\d{5})", text))
    # "the same paper" is that of the section before.
    assert papers <= set(re.findall(r"arXiv:(\d{4}\.\d{5})", section)) or "the same paper" in section
    assert "| needs, cost |" in section and "| score |" in section
