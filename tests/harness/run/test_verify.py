"""``kvgauge verify``: what was changed after a run is found, what cannot be told is said, and what holds is said to
hold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.cli import verification
from harness.engine.engine import Engine
from harness.store.cells import write_atomically
from tests.conftest import ROOT, Command

CELL = "tiny/needle/snapkv-32"
RUN = ("method=[fullkv,snapkv]", "budget=32", "task.lengths=[300]", "task.depths=[0,50]")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the first test that needs a results folder makes it."""
    folder = tmp_path_factory.mktemp("made")
    yield folder / "results"
    shutil.rmtree(folder)


@pytest.fixture
def results(made: Path, kvgauge: Command, tmp_path: Path) -> Path:
    """A results folder of one's own."""
    if not made.exists():
        assert kvgauge(*RUN, f"results_dir={made}").code == 0
    return Path(shutil.copytree(made, tmp_path / "results"))


def change(folder: Path, edit: Callable[[dict[str, Any]], object], file: str = "records.0.jsonl") -> None:
    """Edit a cell's first record, or another file of JSON."""
    path = folder / CELL / file
    first, *rest = (
        path.read_text(encoding="utf-8").splitlines() if file.endswith("jsonl") else [path.read_text(encoding="utf-8")]
    )
    values = json.loads(first)
    edit(values)
    write_atomically(path, "\n".join([json.dumps(values), *rest]) + "\n")


def line_of(out: str) -> str:
    return next(line for line in out.replace("\n  ", " ").splitlines() if line.startswith(CELL))


def test_what_was_not_touched_holds(kvgauge: Command, results: Path) -> None:
    done = kvgauge("verify", str(results), "--sample", "1")
    assert (done.code, done.err) == (0, "")
    words = (
        "2 records of 2 examples of the task; fingerprint, metrics, kept entries, scores, scores.json, settings, "
        "prompts, references, "
        "groups, details, layers, texts, kept indices, ties, bytes, tokens agree"
    )
    told = [f"tiny/needle/{cell}: {words}" for cell in ("fullkv-full", "snapkv-32")]
    assert done.out.replace("\n  ", " ").splitlines() == [*told, "2 cells hold"]


def test_the_sample_is_computed_by_what_computed_the_records(
    kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    assert kvgauge(*RUN, f"results_dir={results}", "engine.kernels=torch").code == 0
    real, asked = verification.Engine.load, list[str]()

    def load(*args: Any, kernels: str, **settings: Any) -> Engine:
        asked.append(kernels)
        return real(*args, kernels="torch", **settings)

    monkeypatch.setattr(verification.Engine, "load", load)
    assert kvgauge("verify", str(results), "--sample", "1").code == 0
    assert kvgauge("verify", str(results), "--sample", "1", "--set", "engine.kernels=auto").code == 0
    assert asked == ["torch", "auto"]
    log = results / "tiny/needle/runs.0.jsonl"
    by_torch = log.read_text()
    change(results, token)
    for others, by, told in (
        ("triton", "auto", "again by torch, where runs took triton, differs"),
        ("no such", "auto", "again differs"),
        ("torch", "torch", "again differs"),
    ):
        log.write_text(by_torch.replace('"kernels": "torch"', f'"kernels": "{others}"'))
        found, _, open_ = line_of(kvgauge("verify", str(results), "--sample", "2").out).partition("; not told: ")
        assert f"tokens of 1 of 2 computed {told}" in (open_ if others == "triton" else found)
        assert asked.pop() == by, "what cannot run here, or is unknown, is left to the machine"
    with log.open("a") as file:
        file.write(by_torch.replace('"kernels": "torch"', '"kernels": "triton"').replace('"pid": ', '"pid": 1'))
    told = "computed again by torch, where runs took torch and triton, differs"
    assert told in line_of(kvgauge("verify", str(results), "--sample", "2").out) and asked.pop() == "auto"


def text(record: dict[str, Any]) -> None:
    record["text"] = "eat a sandwich and sit in Dolores Park on a sunny day."


def token(record: dict[str, Any]) -> None:
    record["tokens"][0] = 400


@pytest.mark.parametrize(
    ("edit", "file", "message"),
    [
        (text, "records.0.jsonl", "scores of 1 records differs"),
        (text, "records.0.jsonl", "texts of 1 records differs"),
        (lambda record: record["scores"].update(word_overlap=0.99), "records.0.jsonl", "scores of 1 records differs"),
        (token, "records.0.jsonl", "texts of 1 records differs"),
        (lambda record: record["kept"].__setitem__(0, 31), "records.0.jsonl", "kept entries of 1 records differs"),
        (lambda record: record.update(retention=0.01), "records.0.jsonl", "kept entries of 1 records differs"),
        (lambda record: record.update(prompt_sha256="00"), "records.0.jsonl", "prompts of 1 records differs"),
        (lambda scores: scores.update(score=99.0), "scores.json", "scores.json says score=99.0, its records give"),
        (lambda manifest: manifest["settings"]["method"].update(window=4), "manifest.json", ("not those of its "
                                                                                            "fingerprint")),
        (lambda manifest: manifest["settings"].update(method={}), "manifest.json", "its settings name no method"),
        (lambda manifest: manifest["settings"]["method"].update(window="x"), "manifest.json", ("its settings make no "
                                                                                              "method")),
        (lambda record: record["group"].update(depth=100), "records.0.jsonl", "groups of 1 records differs"),
        (lambda record: record.update(group={**record["group"], "x": 1}), "records.0.jsonl", ("groups of 1 records "
                                                                                             "differs")),
        (lambda record: record.update(details={"x": 1}), "records.0.jsonl", "details of 1 records differs"),
        (lambda record: record.update(references=[record["text"]]), "records.0.jsonl", ("references of 1 records "
                                                                                       "differs")),
        (
            lambda record: record.update(
                prompt_tokens=100 * record["prompt_tokens"], retention=record["retention"] / 100
            ),
            "records.0.jsonl", "prompts of 1 records differs",
        ),
        (lambda record: record.update(example_id="invented"), "records.0.jsonl", ("1 records are of examples that the "
                                                                                 "manifest's task does")),
        (lambda scores: scores.update(expected=1), "scores.json", ("scores.json says expected=1, but there are 2 "
                                                                  "records")),
        (lambda scores: scores.update(expected="x"), "scores.json", ("scores.json says expected=x, but there are 2 "
                                                                    "records")),
        (lambda manifest: manifest["metrics"][0].update(maximum=2), "manifest.json", ("the manifest's metrics are not "
                                                                                     "those of its task")),
        (lambda manifest: manifest.update(metrics=[]), "manifest.json", ("the manifest's metrics are not those of its "
                                                                        "task")),
        (lambda manifest: manifest.update(heatmap_axes=["depth", "length"]), "manifest.json", ("the manifest's "
                                                                                              "heatmap_axes are not")),
    ],
)  # fmt: skip
def test_what_was_changed_is_found_without_a_model(
    kvgauge: Command, results: Path, edit: Callable[[dict[str, Any]], object], file: str, message: str
) -> None:
    change(results, edit, file)
    done = kvgauge("verify", str(results))
    assert done.code == 1
    assert "WRONG: " in line_of(done.out) and message in line_of(done.out)
    assert "1 of 2 cells are not what they say" in done.err and done.err.count("\n") == 1


def test_a_text_that_was_changed_with_its_tokens_and_scores_is_found_by_the_model_alone(
    kvgauge: Command, results: Path
) -> None:
    other = json.loads((results / "tiny/needle/fullkv-full/records.0.jsonl").read_text().splitlines()[0])
    change(results, lambda record: record.update({name: other[name] for name in ("tokens", "text", "scores")}))
    assert kvgauge("score", str(results)).code == 0
    assert kvgauge("verify", str(results)).code == 0
    done = kvgauge("verify", str(results), "--sample", "2")
    assert done.code == 1
    assert f"tokens of 1 of 2 computed again differs (the first: {other['example_id']!r})" in line_of(done.out)


def test_one_layer_in_place_of_all_is_found(kvgauge: Command, results: Path) -> None:
    path = results / CELL / "records.0.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    write_atomically(path, "".join(json.dumps(record | {"kept": record["kept"][:1]}) + "\n" for record in records))
    assert "layers of 2 records differ" in line_of(kvgauge("verify", str(results)).out)


@pytest.mark.parametrize(
    ("what", "changes"),
    [("bytes", {"kept_bytes": 1}), ("bytes", {"retention_bytes": 0.001}), ("ties", {"tied_heads": 99})],
)
def test_what_only_the_model_gives_is_found_with_it(
    kvgauge: Command, results: Path, what: str, changes: dict[str, float]
) -> None:
    change(results, lambda record: record.update(changes))
    assert f"{what} of 1 of 2 computed again differs" in line_of(kvgauge("verify", str(results), "--sample", "2").out)


def test_results_that_became_errors_are_said_to_be_open_and_nothing_agrees_of_none(
    kvgauge: Command, results: Path
) -> None:
    path = results / CELL / "records.0.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    write_atomically(
        path, "".join(json.dumps(record | {"error": "x", "scores": {}, "text": None}) + "\n" for record in records)
    )
    assert kvgauge("score", str(results)).code == 0
    line = line_of(kvgauge("verify", str(results), "--sample", "2").out)
    agree, _, told = line.partition(" agree")
    assert "2 error records: not computed again" in told
    assert not {"kept entries", "scores", "layers", "texts", "kept indices", "tokens"} & set(
        agree.replace(";", ",").split(", ")
    )


def test_examples_that_a_later_run_asked_for_hold_when_it_is_said_how(kvgauge: Command, results: Path) -> None:
    assert kvgauge(*RUN[:3], "task.depths=[0,50,100]", f"results_dir={results}").code == 0
    refused = kvgauge("verify", str(results))
    assert refused.code == 1
    assert (
        "3 records of 2 examples of the task; WRONG: 1 records are of examples that the manifest's task does not have"
        in refused.told
    )
    done = kvgauge("verify", str(results), "--set", "task.depths=[0,50,100]")
    assert done.code == 0 and "3 records of 3 examples of the task; fingerprint" in line_of(done.out), done.out


def test_examples_of_which_another_cells_manifest_tells_hold(kvgauge: Command, results: Path) -> None:
    """A later run asked the same cells for other examples, and began a cell of its own."""
    words = [word for word in RUN[:3] if not word.startswith("budget")]
    assert kvgauge(*words, "budget=[32,64]", "task.depths=[100]", f"results_dir={results}").code == 0
    done = kvgauge("verify", str(results), "--sample", "3")
    assert done.code == 0 and "WRONG" not in done.told, done.told
    assert "3 records of 3 examples of the task" in line_of(done.out), done.out


def test_a_trial_holds_where_the_task_has_examples_that_cannot_be_made(kvgauge: Command, tmp_path: Path) -> None:
    words = ("task=ruler", "task.tasks=[vt]", "task.lengths=[980]", "task.max_new_tokens=1", "method=fullkv")
    folder = str(tmp_path / "results")
    assert kvgauge(*words, "limit=3", f"results_dir={folder}").code == 2  # the third does not fit into 980 tokens
    assert kvgauge(*words, "limit=2", f"results_dir={folder}").code == 0
    done = kvgauge("verify", folder, "--sample", "1")
    assert (done.code, done.err) == (0, "")
    assert "2 records of 500 examples of the task" in done.told and "not told" not in done.told
    assert "prompts, references" in done.told


def test_indices_that_were_not_kept_are_found(kvgauge: Command, results: Path) -> None:
    change(results, lambda record: record.update(kept_sha256="00"))
    assert "kept indices of 1 of 2 computed again differs" in line_of(
        kvgauge("verify", str(results), "--sample", "2").out
    )


def test_another_models_weights_are_found(kvgauge: Command, results: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(ROOT / "models/tiny", folder)
    weights = load_file(folder / "model.safetensors")
    torch.manual_seed(0)
    save_file(
        {name: w + 0.2 * torch.randn_like(w) for name, w in weights.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    where = (
        "--set",
        "model=hf",
        "--set",
        f"model.path={folder}",
        "--set",
        "model.chat=false",
        "--set",
        "model.max_prompt_tokens=3500",
    )
    done = kvgauge("verify", str(results), "--sample", "2", *where)
    assert done.code == 1 and "2 of 2 cells" in done.err
    assert "made with model.weights=" in line_of(done.out)
    assert "kept indices of 2 of 2 computed again differ" in line_of(done.out) and "tokens of " in line_of(done.out)


def test_without_the_model_the_rest_is_told(kvgauge: Command, results: Path) -> None:
    (results / "tiny").rename(results / "unknown")
    for path in results.rglob("manifest.json"):
        write_atomically(path, json.dumps(json.loads(path.read_text()) | {"model": "unknown"}))
    done = kvgauge("verify", str(results))
    assert done.code == 0, done.err
    assert (
        "fingerprint, metrics, kept entries, scores, scores.json agree; not told: settings and prompts: no preset"
        in done.told
    )
    assert kvgauge("verify", str(results), "--sample", "1").code == 2


def test_a_method_that_is_not_here_is_not_imported(kvgauge: Command, results: Path) -> None:
    change(results, lambda manifest: manifest["settings"]["method"].update({"class": "os.system"}), "manifest.json")
    assert "its method os.system is not here" in line_of(kvgauge("verify", str(results)).out)


@pytest.mark.parametrize("group", [{}, {"length": 300}])
def test_a_record_in_no_place_of_the_heatmap_is_named(kvgauge: Command, results: Path, group: dict[str, int]) -> None:
    change(results, lambda record: record.update(group=group))
    for words in (("verify", str(results)), ("report", str(results)), (*RUN, f"results_dir={results}")):
        refused = kvgauge(*words)
        assert refused.code == 5 and refused.err.count("\n") == 1, refused.err
        assert f"in {CELL} has no group 'depth', an axis of its task's heatmap" in refused.err


def test_a_record_that_its_task_cannot_score_is_named(kvgauge: Command, results: Path) -> None:
    change(results, lambda record: record.update(references=[]))
    for command in ("verify", "score"):
        refused = kvgauge(command, str(results))
        assert refused.code == 5 and refused.err.count("\n") == 1, refused.err
        assert "of task needle cannot be scored (ZeroDivisionError: division by zero)" in refused.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["/nope"], 5, "holds no cell"),
        ([".", "--sample", "-1"], 2, "--sample -1 is below 0"),
        ([".", "--sample", "x"], 2, "invalid int value"),
        ([".", "--set", "budget=3"], 2, "--set budget=3 is no setting of the model or the engine"),
        ([".", "--set", "model.dtype=float16"], 2, "--set model.dtype=float16 is not for you to say: leave it out"),
        ([".", "--set", "model.name=other"], 2, "--set model.name=other is not for you to say: leave it out"),
    ],
)
def test_bad_words_are_one_line(kvgauge: Command, words: list[str], code: int, message: str) -> None:
    failed = kvgauge("verify", *words)
    assert failed.code == code
    assert message in failed.err and failed.err.count("\n") == 1
