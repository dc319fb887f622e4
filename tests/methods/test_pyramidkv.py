"""PyramidKV's schedule against its own promises."""

import pytest

from methods.pyramidkv import PyramidKV


@pytest.mark.parametrize("layers", [1, 2, 3, 6, 31, 32, 80])
@pytest.mark.parametrize("budget", [9, 10, 17, 64, 128, 2048])
@pytest.mark.parametrize("prompt", [8, 64, 111, 112, 113, 128, 240, 242, 7500])
def test_the_exact_schedule_spends_exactly_the_budget_and_never_rises(layers: int, budget: int, prompt: int) -> None:
    keep = PyramidKV("p", 8, 7, "maxpool", 20, "exact").keep(budget, prompt, layers)
    assert sum(keep) == min(budget, prompt) * layers
    assert list(keep) == sorted(keep, reverse=True)
    assert max(keep) <= prompt
    assert min(keep) >= min(8, prompt)


def test_the_reference_schedule_is_the_published_one() -> None:
    keep = PyramidKV("p", 8, 7, "maxpool", 20, "reference").keep(128, 7500, 32)
    assert (keep[0], keep[-1], sum(keep) / 32) == (242, 25, 133.5)
