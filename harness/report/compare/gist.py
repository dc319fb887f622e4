"""The gist of a comparison, for the terminal: how many numbers lie inside, and where the largest gap is."""

from __future__ import annotations

import math

from harness.printing import lines
from harness.report.document import Document
from harness.report.format import signed
from harness.report.stats.bootstrap import FEWEST
from harness.report.terminal import pressing_notes


def gist(document: Document) -> str:
    """What a comparison says in a few lines.

    Args:
        document: of ``comparison_document`` or ``paired_documents``, whose numbers say whether theirs, or no
            difference, lies inside an interval; or another, of which only the title is told.
    """
    (raw,) = document.data.values()
    if not {"theirs_is", "zero_is"} & set(raw):
        return "\n".join(lines(document.title))
    verdict = raw["theirs_is"] if "theirs_is" in raw else raw["zero_is"]
    held = verdict.isin(["inside", "outside"]).sum()
    what = "published numbers lie inside our intervals" if "theirs_is" in raw else "differences have 0 inside"
    trials = int(verdict.astype(object).fillna("").astype(str).str.startswith("trial").sum())
    parts = [f"{(verdict == 'inside').sum()} of {held} {what}"] if held else []
    parts += [f"{trials} numbers of trials are not held against theirs"] if trials else []
    parts = parts or [f"nothing has an interval, which takes {FEWEST} examples"]
    gaps = [row for row in raw.to_dict("records") if math.isfinite(row["difference"])]
    if gaps:
        worst = max(gaps, key=lambda row: abs(float(row["difference"])))
        gap = signed(worst["difference"])
        parts.append(f"largest gap {gap}: {worst['method']} at {worst['budget']} in {worst['column']}")
    told = (document.title, "; ".join(parts), *pressing_notes(document.notes))
    return "\n".join(line for text in told for line in lines(text))
