"""A grid from the words of a command line."""

from __future__ import annotations

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from harness.budget import parse_budgets
from harness.build import ROOT, build
from harness.grid import Variant, make_grid
from harness.schema import Selection


def grid_of(overrides: Sequence[str]) -> tuple[tuple[Variant, ...], Selection]:
    """The variants and the selection that a run with these overrides would have.

    Raises:
        KvgaugeError: a method or a budget that cannot be used.
    """
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", overrides=list(overrides))
    methods = [build(node, f"method={name}: ") for name, node in config.method.items() if "_target_" in node]
    values = OmegaConf.to_container(config)
    assert isinstance(values, dict)
    return make_grid(methods, parse_budgets(values["budget"])), Selection(**values["selection"])
