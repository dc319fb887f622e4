"""Prompts that a run saves beside its records."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from harness.config.build import composed
from harness.run.configure import runs
from harness.run.prepare import prepare
from harness.run.prompts import prompt_saver
from harness.store.prompts import read_prompt, saved_prompts
from tests.conftest import ROOT, Command
from tests.harness.folders import cells, records

RUN = ("method=snapkv", "budget=32", "task.lengths=[300]", "task.depths=[0,100]")


def test_prompts_are_saved_as_the_model_reads_them_and_only_where_that_is_wanted(tmp_path: Path) -> None:
    wanted, unwanted = (
        prepare(runs(composed(*RUN, f"results_dir={tmp_path / save}", f"save_prompts={save}"))[0][0])
        for save in ("true", "false")
    )
    for prepared in (wanted, unwanted):
        prepared.folder.mkdir(parents=True)
        prompt_saver(prepared)(["300-0"])
    assert not list(unwanted.folder.iterdir())
    ((sha256, packed),) = saved_prompts(wanted.folder).items()
    text = read_prompt(packed)
    ids = AutoTokenizer.from_pretrained(ROOT / "models/tiny").encode(text, add_special_tokens=False)
    assert hashlib.sha256(np.asarray(ids, "<i4").tobytes()).hexdigest() == sha256 == wanted.prompts[0].sha256
    assert text.endswith(wanted.prompts[0].ends[-1])


@pytest.mark.slow
def test_the_same_command_adds_the_prompts_of_earlier_results_and_computes_nothing(
    kvgauge: Command, tmp_path: Path
) -> None:
    words = [*RUN, f"results_dir={tmp_path}"]
    page, folder = tmp_path / "report/index.html", tmp_path / "tiny/needle"
    assert kvgauge(*words, "save_prompts=false").code == 0
    assert not saved_prompts(folder) and "data-prompts" not in page.read_text()
    done = kvgauge(*words)
    assert done.code == 0 and "new records: 0" in done.out
    read = {record["prompt_sha256"] for record in records(cells(tmp_path, "needle")["snapkv-32"])}
    assert saved_prompts(folder).keys() == read and len(read) == 2
    assert {path.stem for path in (tmp_path / "report/index.prompts/tiny/needle").iterdir()} == read
