"""The speed of our ROUGE-L against that of ``rouge`` 1.0.1, on real pairs of texts.

    python benchmarks/rouge_speed.py [multi_news.jsonl]

Both score each pair, one after the other, several times; times are CPU time of this process. References are the
records' answers, and predictions are the first words of their contexts. ``rouge`` is called as LongBench calls it, and
again for rouge-l alone.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from rouge import Rouge

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tasks.scores.rouge_l import rouge_l  # noqa: E402

WORDS = 400  # about 512 new tokens
ROUNDS = 3


def seconds(score: Callable[[str, str], float], prediction: str, reference: str) -> tuple[float, float]:
    """CPU seconds of one score, and the score."""
    begin = time.process_time()
    value = score(prediction, reference)
    return time.process_time() - begin, value


def main(path: Path) -> None:
    """Run the benchmark on a file of LongBench records and print the times."""
    rows = [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
    pairs = [(" ".join(row["context"].split()[:WORDS]), row["answers"][0]) for row in rows]
    everything, only_l = Rouge(), Rouge(metrics=["rouge-l"])

    def official(prediction: str, reference: str) -> float:
        return float(everything.get_scores([prediction], [reference], avg=True)["rouge-l"]["f"])

    def alone(prediction: str, reference: str) -> float:
        return float(only_l.get_scores([prediction], [reference], avg=True)["rouge-l"]["f"])

    totals: list[tuple[float, float, float]] = []
    ratios: list[float] = []
    for _ in range(ROUNDS):
        times = []
        for prediction, reference in pairs:
            official_seconds, official_value = seconds(official, prediction, reference)
            our_seconds, our_value = seconds(rouge_l, prediction, reference)
            lone, _ = seconds(alone, prediction, reference)
            if our_value != official_value:
                raise SystemExit(f"different scores: {our_value!r} and {official_value!r}")
            times.append((official_seconds, our_seconds, lone))
        totals.append((sum(t[0] for t in times), sum(t[1] for t in times), sum(t[2] for t in times)))
        ratios += [official_seconds / our_seconds for official_seconds, our_seconds, _ in times]
    official_seconds, our_seconds, lone = (median(total[i] for total in totals) for i in range(3))
    print(
        f"{len(pairs)} pairs of {path.name}, median of {ROUNDS} rounds, CPU seconds, Python {platform.python_version()}"
    )
    print(f"rouge 1.0.1 as LongBench calls it  {official_seconds:8.3f}")
    print(f"rouge 1.0.1, rouge-l alone         {lone:8.3f}")
    print(f"ours                               {our_seconds:8.3f}")
    print(
        f"ratio of totals {official_seconds / our_seconds:.1f} (rouge-l alone {lone / our_seconds:.1f}), "
        f"median ratio per pair {median(ratios):.1f}"
    )
    print("all scores equal")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared/data/longbench/multi_news.jsonl")
