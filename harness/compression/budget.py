"""Budgets: ``128`` entries, ``12%`` of each prompt, or ``full``; ``own`` for methods with a knob in place of a budget.

They are numbers of entries per cache head and layer, averaged over layers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from harness.errors import ConfigError

_FORMS = "use entries (budget=128), a share of the prompt (budget=12%) or budget=full"


@dataclass(frozen=True)
class Budget:
    """A parsed budget.

    Attributes:
        text: its canonical spelling, which names folders and table rows.
        tokens: number of entries, 1 or more, of an absolute budget; else None.
        share: share of the prompt, above 0 and at most 1, of a relative budget; else None.
    """

    text: str
    tokens: int | None = None
    share: Fraction | None = None

    @property
    def rank(self) -> tuple[int, float]:
        """What budgets are sorted by: entries by number, then shares by size, then ``own``, then the full cache."""
        if self.tokens is not None:
            return (0, float(self.tokens))
        if self.share is not None:
            return (1, float(self.share))
        return (2, float(self.text == "full"))

    def entries(self, prompt_tokens: int) -> int:
        """Number of entries for one prompt, 1 or more; for ``own`` the most that there can be, all of them.

        A share is rounded half to even, as the published runner's ``round`` does.
        """
        if self.tokens is not None:
            return self.tokens
        if self.share is not None:
            return max(1, round(self.share * prompt_tokens))
        return prompt_tokens


FULL = Budget("full")
OWN = Budget("own")
"""What stands in the place of a budget for a method that drops entries by a knob of its own, such as a threshold."""


def parse_budget(value: object) -> Budget:
    """Parse a budget from the configuration, the command line or a results folder.

    Raises:
        ConfigError: the value has none of the three forms, is out of range, or could mean two things.
    """
    if isinstance(value, bool) or value is None:
        raise ConfigError(f"budget={value} is not a budget: {_FORMS}")
    if isinstance(value, float):
        raise ConfigError(
            f"budget={value} could mean {value:g} entries or {100 * value:g} % of the prompt: "
            + (f"write budget={int(value)} or " if value >= 1 and value.is_integer() else "write whole entries or ")
            + (f"budget={100 * value:g}%" if 0 < value <= 1 else "a share such as budget=12%")
        )
    text = str(value).strip()
    if text in (FULL.text, OWN.text):
        return FULL if text == FULL.text else OWN
    if re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        tokens = int(text)
        if tokens < 1:
            raise ConfigError(f"budget={text} is below 1 entry: {_FORMS}")
        return Budget(str(tokens), tokens=tokens)
    if match := re.fullmatch(r"([+-]?[0-9]{1,18}(?:\.[0-9]{1,18})?)\s*%", text):
        percent = Decimal(match[1])
        if not 0 < percent <= 100:
            raise ConfigError(f"budget={text} is outside 0-100 %: {_FORMS}")
        plain = f"{percent:f}"
        plain = plain.rstrip("0").rstrip(".") if "." in plain else str(int(percent))
        return Budget(f"{plain}%", share=Fraction(percent) / 100)
    shown = " ".join(text.split())
    raise ConfigError(f"budget={shown if len(shown) <= 40 else f'{shown[:37]}...'} is not a budget: {_FORMS}")


def parse_budgets(value: object) -> tuple[Budget, ...]:
    """Parse one budget or a list of budgets; duplicates are dropped and the order is kept.

    Raises:
        ConfigError: as in ``parse_budget``, the list is empty, or it contains ``own``, which nobody can ask for.
    """
    values: Sequence[object] = value if isinstance(value, (list, tuple)) else [value]
    if not values:
        raise ConfigError(f"budget=[] names no budget: {_FORMS}")
    budgets = tuple(dict.fromkeys(parse_budget(v) for v in values))
    if OWN in budgets:
        raise ConfigError(f"budget=own comes by itself with methods that have no budget, such as dms: {_FORMS}")
    return budgets
