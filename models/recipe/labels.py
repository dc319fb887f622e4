"""The data of a small classification task in the form of LongBench's trec: labelled questions, then one without label.

Its questions are generated, so that a model that knows no language can answer them: the last word of a question, which
is the thing that it asks about, decides its type, and the examples show which type belongs to which thing.
``python models/recipe/labels.py`` writes ``models/labels/data.zip``.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import zipfile
from pathlib import Path

SEED = 7
RECORDS = 200  # as LongBench's trec

# Every type begins with a letter of its own, so that a small model need not tell Glass from Garden while it writes.
_TYPES = {
    "cupboard": "Wood",
    "raft": "Boat",
    "willow": "Tree",
    "halter": "Rope",
    "orchard": "Garden",
    "herring": "Fish",
    "brine": "Salt",
    "gate": "Door",
    "cottage": "House",
    "anvil": "Metal",
    "ledger": "Paper",
    "candle": "Light",
}
_QUESTIONS = (
    "Who left {place} with the {thing}?",
    "Where did {name} find the {thing}?",
    "When did {name} come back to {place} for the {thing}?",
    "Why did {name} never speak of the {thing}?",
    "What did {name} do at {place} with the {thing}?",
    "How far did {name} go for the {thing}?",
    "Did anyone at {place} ask {name} about the {thing}?",
)
_SLOTS = {
    "name": ("Oskar", "Lena", "the miller", "Irma", "the old pilot", "Theo", "Paula", "the cook", "Bela", "the twins"),
    "place": (
        "the mill",
        "the quay",
        "the north gate",
        "the bakery",
        "the weir",
        "the vineyard",
        "the toll house",
        "the ferry",
        "the barn",
    ),
}


def records(count: int, examples_of_a_type: int, seed: int) -> list[dict[str, object]]:
    """Records of LongBench's schema; the questions of a record all differ.

    Args:
        count: number of records.
        examples_of_a_type: number of labelled questions of each type in a context.
        seed: seed of everything that is drawn.
    """
    draw = random.Random(seed)
    made: list[dict[str, object]] = []
    for _ in range(count):
        questions: dict[str, str] = {}
        asked = draw.choice(list(_TYPES))
        for thing in [*_TYPES] * examples_of_a_type + [asked]:
            question = _question(thing, draw)
            while question in questions:
                question = _question(thing, draw)
            questions[question] = _TYPES[thing]
        *examples, (question, answer) = questions.items()
        draw.shuffle(examples)
        context = "".join(f"Question: {text}\nType: {kind}\n" for text, kind in examples)
        record = {
            "input": f"Question: {question}\nType:",
            "context": context,
            "answers": [answer],
            "length": len(context.split()),
            "dataset": "trec",
            "language": "en",
            "all_classes": list(_TYPES.values()),
        }
        made.append(record | {"_id": hashlib.sha256(json.dumps(record).encode()).hexdigest()[:48]})
    return made


def _question(thing: str, draw: random.Random) -> str:
    return draw.choice(_QUESTIONS).format(thing=thing, **{slot: draw.choice(words) for slot, words in _SLOTS.items()})


def write(path: Path) -> None:
    """Write a data.zip like LongBench's, with trec alone; its bytes are the same every time."""
    lines = "".join(json.dumps(record) + "\n" for record in records(RECORDS, 4, SEED))
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("data/trec.jsonl"), lines, zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / "labels/data.zip"
    write(target)
    print(target)
