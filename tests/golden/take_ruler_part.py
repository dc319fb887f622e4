"""Takes the part of RULER's golden data that the repository holds: ``python -m tests.golden.take_ruler_part shared``.

The data are files that NVIDIA's own program wrote with the tokenizer of SmolLM2. Of those whose texts are made of
nothing that is another's, the part holds the hashes of the lines, where kvpress splits them, and the numbers of tokens
that the tokenizer counts while they are made, so that no tokenizer is needed to make them again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.tasks.ruler.golden import Tokens, made, sha256


def main(shared: Path) -> None:
    """Write ``tests/golden/ruler/offline.json`` and ``scorer_cases.json``."""
    golden = shared / "benchmarks/ruler"
    part: dict[str, Any] = {"source": "NVIDIA/RULER c3f5e3b, tokenizer SmolLM2-135M-Instruct, seed 42", "files": {}}
    tokens = Tokens(shared)
    splits = json.loads((golden / "kvpress_split.json").read_text())
    for file in sorted((golden / "golden").rglob("*.jsonl")):
        name = file.relative_to(golden / "golden").as_posix()
        if tokens.offline(name):
            counts: list[int] = []
            made(name, 10, lambda text, counts=counts: counts.append(tokens.count(text)) or counts[-1])
            part["files"][name] = {
                "counts": counts,
                "lines": [sha256(line) for line in file.read_text().splitlines()],
                "splits": [
                    [split["context_sha256"], split["question"], split["answer_prefix"]]
                    for split in splits
                    if split["file"] == name
                ],
            }
    here = Path(__file__).parent / "ruler"
    (here / "offline.json").write_text(json.dumps(part, indent=0) + "\n")
    cases = json.loads((golden / "scorer_cases.json").read_text())
    wanted = ("task", "predictions", "references", "each_rounded", "score", "kvpress_score")
    (here / "scorer_cases.json").write_text(
        json.dumps([{k: case[k] for k in wanted} for case in cases], indent=0) + "\n"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
