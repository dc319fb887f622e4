"""Keys and numbers of needles that are drawn anew for every example."""

from __future__ import annotations

import random
from collections.abc import Iterator

_ADJECTIVES = (
    "amber", "bold", "brisk", "calm", "candid", "clever", "crimson", "curious", "distant", "eager", "early", "faint",
    "gentle", "golden", "hollow", "humid", "icy", "jolly", "keen", "level", "lively", "mellow", "nimble", "noble",
    "pale", "proud", "quiet", "rapid", "rustic", "sly", "smooth", "tall", "tender", "vivid", "warm", "witty",
)  # fmt: skip
_NOUNS = (
    "acorn", "badger", "beacon", "bridge", "candle", "canyon", "cedar", "comet", "copper", "coral", "drum", "falcon",
    "feather", "fiddle", "glacier", "harvest", "island", "jacket", "kettle", "lantern", "marble", "meadow", "otter",
    "pebble", "pepper", "quarry", "ribbon", "saddle", "sparrow", "teapot", "thistle", "timber", "tunnel", "velvet",
    "violin", "walnut",
)  # fmt: skip

MOST = len(_ADJECTIVES) * len(_NOUNS)
"""Number of different keys."""


def keys_and_values(seed: int, example_id: str) -> Iterator[tuple[str, str]]:
    """Pairs of a key ("quiet-lantern") and a 7-digit number, both as text.

    No key comes twice; the iterator ends when none is left.
    """
    # Seeded with a string, and only random() is used: the draw is the same under every Python version.
    draw = random.Random(f"{seed}/{example_id}").random
    used: set[str] = set()
    while len(used) < MOST:
        key = f"{_ADJECTIVES[int(draw() * len(_ADJECTIVES))]}-{_NOUNS[int(draw() * len(_NOUNS))]}"
        value = str(1_000_000 + int(draw() * 9_000_000))
        if key not in used:
            used.add(key)
            yield key, value
