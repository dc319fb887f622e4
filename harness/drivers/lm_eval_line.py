"""The command line of lm-evaluation-harness with kvgauge as its model, run once for each cell of a grid."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from copy import deepcopy
from io import StringIO
from pathlib import Path

from lm_eval._cli import HarnessCLI
from lm_eval.config.evaluate_config import EvaluatorConfig
from lm_eval.utils import setup_logging

from harness.drivers.grid import Tally
from harness.drivers.lm_eval import open_grid, refusal
from harness.engine.model_files import first_line
from harness.errors import ConfigError, EngineError


def evaluate(words: Sequence[str], tell: Callable[[str], None]) -> None:
    """Run lm-eval's command line. What one cell is asked is computed for all, from one prefill of each context.

    Args:
        words: its words, without the program's name. ``--model`` may be left out. ``--output_path`` and ``--use_cache``
            get each cell's name.
        tell: called with a line of text for each cell.

    Raises:
        ConfigError: an argument cannot be used.
        EngineError: cells could not be evaluated; the results of the others are written.
        KvgaugeError: the model cannot be used.
    """
    setup_logging()
    sys.argv = ["lm_eval", *words]
    line = HarnessCLI()
    given = _parsed(line)
    if given.command != "run":
        line.execute(given)
        return
    if given.model not in (None, "kvgauge"):
        raise ConfigError(f"--model {given.model} is not kvgauge: use lm_eval's own command for it")
    given.model = "kvgauge"
    given.device = given.device or "auto"  # lm-eval's own default is the first card
    try:
        config = EvaluatorConfig.from_cli(deepcopy(given))
        tasks = config.process_tasks(config.metadata).load(config.tasks)["tasks"]
    except Exception as error:  # tasks are YAML and code of anyone's, and read files of any kind
        raise ConfigError(
            f"lm-eval cannot load its tasks ({first_line(error)}): check --tasks, --include_path and the tasks' data"
        ) from error
    for name, task in tasks.items():
        if task.get_config("output_type") == "loglikelihood_rolling":  # before the model is loaded
            raise ConfigError(refusal(name))
    model_args = dict(config.model_args)
    tallies = open_grid({"device": given.device, **model_args}).grid.tallies
    failed = {}
    cells = [cell for cell in tallies if model_args.get("cell") in (None, cell.name)]
    for cell in cells:
        of_cell = deepcopy(given)
        of_cell.model_args = {**model_args, "cell": cell.name}
        if given.output_path is not None:
            of_cell.output_path = str(Path(given.output_path) / cell.name)
        if given.use_cache is not None:
            of_cell.use_cache = f"{given.use_cache}_{cell.name}"
        try:
            line.execute(of_cell)
        except EngineError as error:
            failed[cell] = error
            tell(f"{cell.name} has no results: {error}")
        else:
            tell(_kept(cell.name, tallies[cell]))
    if failed:
        raise EngineError(
            f"{len(failed)} of {len(cells)} cells have no results; the first: {next(iter(failed.values()))}"
        )


def _parsed(line: HarnessCLI) -> Namespace:
    """The words of ``sys.argv``; what argparse prints below a usage text becomes an error."""
    said = StringIO()
    try:
        with redirect_stderr(said):
            given: Namespace = line.parse_args()
            return given
    except SystemExit as end:
        if not end.code:
            raise
        reason = said.getvalue().strip().rpartition("error: ")[2] or "lm-eval does not take these words"
        raise ConfigError(f"kvgauge lm_eval: {reason}: kvgauge lm_eval --help shows what it takes") from end


def _kept(name: str, tally: Tally) -> str:
    """What a cell kept of the contexts that it has answered for, in a line."""
    share = tally.bytes / max(1, tally.full_bytes)
    return (
        f"{name}: entries were dropped of {tally.compressed} of {tally.contexts} contexts; what was kept is "
        f"{share:.1%} of the full caches' bytes"
    )
