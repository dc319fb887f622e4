"""Hostile input: nothing runs that was not asked for, nothing is written outside, no secret is kept, no memory is
filled.

docs/security.md has the whole table; rows that other files test are named there.
"""

from __future__ import annotations

import ast
import csv
import json
import os
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.config import build, catalog, recorded
from harness.errors import ConfigError, DataError
from tasks import files as task_files
from tasks.longbench.files import SOURCE
from tests.conftest import ROOT, Command

CANARY = "hf_canaryCanaryCanary"
OUR_OWN = [ROOT / "harness/bench/memory.py"]  # gives its own child process what it made itself
ESCAPES = "\x1b[31mred\x1b[0m\x07\x08\u202e\r\nnext"


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (self.marker,))


@pytest.fixture
def words(prompts_file: Path, tmp_path: Path) -> tuple[str, ...]:
    """A run of a second."""
    return (
        "method=snapkv",
        "budget=32",
        "task=tokens",
        f"task.prompts={prompts_file}",
        "task.max_new_tokens=2",
        f"results_dir={tmp_path / 'results'}",
    )


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


# --- code


def test_no_payload_of_pickled_weights_runs(kvgauge: Command, words: tuple[str, ...], tmp_path: Path) -> None:
    folder, marker = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(ROOT / "models/tiny", folder)
    (folder / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "model.pt", "model.safetensors"):
        (folder / name).write_bytes(pickle.dumps(Payload(marker)))
        refused = kvgauge("model=hf", f"model.path={folder}", *words)
        assert refused.code == 4 and refused.err.count("\n") == 1, refused.err
    assert not marker.exists()


def test_no_code_beside_a_known_family_or_in_a_chat_template_runs(
    kvgauge: Command, words: tuple[str, ...], tmp_path: Path
) -> None:
    folder, marker = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(ROOT / "models/tiny", folder)
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(marker)!r})\nclass Evil: pass\n")
    maps = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil", "AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    for name in ("config.json", "tokenizer_config.json"):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(values | {"auto_map": maps}))
    assert kvgauge("model=hf", f"model.path={folder}", *words).code == 0, "transformers has the family itself"
    reach = f"{{{{ cycler.__init__.__globals__.os.mkdir('{marker}') }}}}"
    (folder / "chat_template.jinja").write_text(reach)
    chat = (
        "task=needle_chat",
        "task.lengths=[300]",
        "task.depths=[50]",
        "method=fullkv",
        f"results_dir={tmp_path / 'r'}",
    )
    refused = kvgauge("model=hf", f"model.path={folder}", *chat)
    assert refused.code and refused.err.count("\n") == 1, refused.err
    assert not marker.exists()


def test_a_tag_in_a_yaml_file_makes_no_object(kvgauge: Command, words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "mine/method").mkdir(parents=True)
    marker = tmp_path / "ran"
    yaml = f"# @package method.evil\n_target_: evil.Evil\nlabel: !!python/object/apply:os.mkdir ['{marker}']\n"
    (tmp_path / "mine/method/evil.yaml").write_text(yaml)
    refused = kvgauge(f"method_path={tmp_path / 'mine'}", *words[1:], "method=evil")
    assert refused.code == 2 and "without tags" in refused.err and refused.err.count("\n") == 1
    assert not marker.exists()


def test_a_target_in_a_manifest_is_not_called(kvgauge: Command, words: tuple[str, ...], tmp_path: Path) -> None:
    assert kvgauge(*words).code == 0
    path, marker = tmp_path / "results/tiny/tokens/snapkv-32/manifest.json", tmp_path / "ran"
    manifest = json.loads(path.read_text())
    manifest["task_config"] = {"_target_": "os.mkdir", "path": str(marker), "name": "suite"}
    manifest["settings"]["method"] = {"class": "os.mkdir", "path": str(marker)}
    path.write_text(json.dumps(manifest))
    for command in ("report", "score", "verify", "compare"):
        refused = kvgauge(command, str(tmp_path / "results"))
        assert refused.code in (1, 2, 5) and refused.err.count("\n") == 1, (command, refused.err)
    assert not marker.exists()


CALLS = {"_target_": "os.mkdir", "path": "MARKER"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"stop": CALLS}, "task_config.stop._target_ of the results would call"),
        ({"x": [{"y": CALLS}]}, "task_config.x.0.y._target_ of the results would call"),
        ({"x": {"_recursive_": False}}, "task_config.x._recursive_ of the results would call"),
        ({"_args_": [CALLS]}, "of the results would call"),
        ({"_partial_": True}, "task_config._partial_ of the results would call"),
        ({"stop": "${oc.create:{_target_:os.mkdir,path:MARKER}}"}, "task_config.stop of the results is no value"),
        ({"_target_": None, "stop": CALLS}, "task_config has no _target_"),
    ],
)
def test_nothing_below_the_top_of_a_manifests_task_is_called(
    kvgauge: Command, words: tuple[str, ...], tmp_path: Path, config: dict[str, object], message: str
) -> None:
    assert kvgauge(*words).code == 0
    path, marker = tmp_path / "results/tiny/tokens/snapkv-32/manifest.json", tmp_path / "ran"
    manifest = json.loads(path.read_text())
    config = json.loads(json.dumps(config).replace("MARKER", str(marker)))
    # Another name than the task's makes the report look for its suite.
    manifest["task_config"] |= {"name": "suite", **config}
    path.write_text(json.dumps(manifest))
    for command in ("report", "score", "verify"):
        refused = kvgauge(command, str(tmp_path / "results"))
        assert refused.code == 2 and refused.err.count("\n") == 1 and message in refused.err, (command, refused.err)
    assert not marker.exists()


def test_of_a_tasks_yaml_only_the_class_at_the_top_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf/task").mkdir(parents=True)
    (tmp_path / "conf/task/own.yaml").write_text("_target_: types.SimpleNamespace\nname: own\npart: {x: 1}\n")
    (tmp_path / "conf/task/heir.yaml").write_text("defaults: [own]\nname: heir\n")
    monkeypatch.setattr(catalog, "ROOT", tmp_path)
    node = {"_target_": "types.SimpleNamespace", "name": "own", "part": {"x": 2}}
    (made,), _ = recorded.recorded_tasks(node)
    assert made.part == {"x": 2}  # type: ignore[attr-defined]
    part = {"_target_": "types.SimpleNamespace", "x": 2}
    for bad in ({"part": part}, {"part": part | {"_target_": "builtins.dict"}}, {"other": part}, {"part": {"x": part}}):
        with pytest.raises(ConfigError, match="of the results would call something"):
            recorded.recorded_tasks(node | bad)
        with pytest.raises(ConfigError, match="would call something"):
            build.build(node | bad)
    with pytest.raises(ConfigError, match="no _target_"):
        recorded.recorded_tasks({"name": "heir"})
    with pytest.raises(ConfigError, match="none of conf/task"):
        recorded.recorded_tasks(node | {"_target_": "builtins.dict"})


@pytest.mark.parametrize("target", ["os.mkdir", "os", "", "methods.snapkv", None, 3, ["os.mkdir"]])
def test_what_is_no_class_is_not_called(target: object) -> None:
    with pytest.raises(ConfigError, match="is no class|cannot be made"):
        build.build({"_target_": target, "path": "x"})


@pytest.mark.parametrize(
    "knobs",
    [
        {"window": CALLS},
        CALLS,
        {"x": [CALLS]},
        {"x": {"_recursive_": False}},
        {"window": "${oc.create:{_target_:os.mkdir,path:MARKER}}"},
    ],
)
def test_nothing_in_a_manifests_method_is_called(
    kvgauge: Command, words: tuple[str, ...], tmp_path: Path, knobs: dict[str, object]
) -> None:
    assert kvgauge(*words).code == 0
    path, marker = tmp_path / "results/tiny/tokens/snapkv-32/manifest.json", tmp_path / "ran"
    manifest = json.loads(path.read_text())
    manifest["settings"]["method"] |= json.loads(json.dumps(knobs).replace("MARKER", str(marker)))
    path.write_text(json.dumps(manifest))
    found = kvgauge("verify", str(tmp_path / "results"))
    assert found.code == 1 and "its settings make no method or no storage (settings.method." in found.told, found.out
    for command in ("report", "score"):
        assert kvgauge(command, str(tmp_path / "results")).code == 0
    assert not marker.exists()


def test_a_dtype_in_a_manifest_is_not_called(kvgauge: Command, words: tuple[str, ...], tmp_path: Path) -> None:
    assert kvgauge(*words).code == 0
    path, marker = tmp_path / "results/tiny/tokens/snapkv-32/manifest.json", tmp_path / "ran"
    manifest = json.loads(path.read_text())
    manifest["settings"]["model"]["dtype"] = f"{{_target_:os.mkdir,path:{marker}}}"
    path.write_text(json.dumps(manifest))
    refused = kvgauge("verify", str(tmp_path / "results"))
    assert refused.code == 5 and "model.dtype in the manifest of" in refused.err
    assert not marker.exists()


def test_the_sources_evaluate_unpickle_and_trust_nothing() -> None:
    """No eval, exec, pickle or shell, no torch.load of more than weights, and remote code refused wherever
    transformers could run it."""
    found = []
    folders = ("harness", "methods", "tasks", "models", "kvgauge", "benchmarks")
    for path in (ROOT / "run.py", *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + (
                    [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                )
                found += [
                    (where, name)
                    for name in names
                    if path not in OUR_OWN and name.split(".")[0] in ("pickle", "dill", "joblib", "shelve", "marshal")
                ]
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                bad = called in ("eval", "exec", "os.system", "yaml.load", "yaml.unsafe_load") or called.endswith(
                    ".extractall"
                )
                bad |= called == "torch.load" and keywords.get("weights_only") != "True"
                found += [(where, called)] if bad or keywords.get("shell") == "True" else []
                found += [(where, called)] if keywords.get("trust_remote_code", "False") != "False" else []
                if called.endswith(".from_pretrained"):
                    passed = (
                        "trust_remote_code" in keywords
                        or "self._arguments()" in ast.unparse(node)
                        or "**" in ast.unparse(node)
                    )
                    found += [] if passed else [(where, called)]
    assert found == []


# --- paths


@pytest.mark.parametrize(
    "words",
    [
        ["hydra.run.dir=out/${model.name}", "model.name=../../escaped"],
        ["hydra.run.dir=../escaped"],
        ["-m", "budget=32,48", "hydra.sweep.dir=out/../../escaped"],
        ["-m", "budget=32,48", "hydra.sweep.subdir=${model.name}", "model.name=../../escaped"],
        ["-m", "budget=32,48", "hydra.sweep.subdir=../../escaped"],
        ["-m", "budget=32,48", "hydra.sweep.subdir=/escaped"],
        ["hydra.output_subdir=../escaped"],
    ],
)  # fmt: skip
def test_hydras_folders_do_not_leave_theirs(
    kvgauge: Command, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a/b")
    refused = kvgauge(*words, "task.lengths=[300]")
    assert refused.code == 2 and refused.err.count("\n") == 1, refused.err
    assert "hydra." in refused.err
    assert files(tmp_path) == {"a", "a/b"}


@pytest.mark.parametrize(
    "words",
    [["model.name=../x"], ["task.name=../x"], ["method.snapkv.label=../x"], ["model.name=a/b"], ["task.name=/x"]],
)
def test_names_of_a_configuration_do_not_leave_the_results(kvgauge: Command, words: list[str], tmp_path: Path) -> None:
    refused = kvgauge("method=snapkv", "task.lengths=[300]", f"results_dir={tmp_path / 'results'}", *words)
    assert refused.code == 2 and "cannot name a folder" in refused.err
    assert files(tmp_path) == set()


def test_ids_of_examples_name_no_file(
    kvgauge: Command, words: tuple[str, ...], prompts_file: Path, tmp_path: Path
) -> None:
    prompts_file.write_text(
        json.dumps({"../../../escaped": [*range(2, 70)], "/escaped": [*range(3, 70)], "a\x1b[2J\nb": [*range(4, 70)]})
    )
    assert kvgauge(*words).code == 0
    assert {path.parts[0] for path in map(Path, files(tmp_path))} == {"prompts.json", "results"}
    assert not any("escaped" in name for name in files(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"model": "../../escaped"}, {"task": "../../escaped"}, {"cell": {"label": "../../escaped", "budget": "32"}},
        {"cell": {"label": "snapkv", "budget": "../../escaped"}}, {"task_config": {"name": "../../escaped"}},
        {"task_config": 3},
    ],
)  # fmt: skip
def test_names_of_a_manifest_do_not_leave_the_report(
    kvgauge: Command, words: tuple[str, ...], tmp_path: Path, change: dict[str, object]
) -> None:
    (tmp_path / "results/tiny/tokens/snapkv-32").mkdir(parents=True)
    manifest = {
        "cell": {"label": "snapkv", "budget": "32"}, "place": 0, "model": "tiny", "task": "tokens", "settings": {},
        "metrics": [],
        "heatmap_axes": None, "note": "", "task_config": {"name": "tokens"}, "provenance": {}, "breakdown": None,
    }  # fmt: skip
    path = tmp_path / "results/tiny/tokens/snapkv-32/manifest.json"
    path.write_text(json.dumps(manifest))
    assert kvgauge("report", str(tmp_path / "results")).code == 0
    before = files(tmp_path)
    path.write_text(json.dumps(manifest | change))
    for command in ("report", "score", "verify"):
        refused = kvgauge(command, str(tmp_path / "results"))
        assert refused.code == 5 and refused.err.count("\n") == 1, refused.err
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", ["..", "a b", "..\\x"])
def test_folders_of_imported_predictions_name_none_of_ours(kvgauge: Command, tmp_path: Path, name: str) -> None:
    prediction = {"pred": "x", "answers": ["x"], "all_classes": None, "length": 3}
    folder = tmp_path / "pred"
    folder.mkdir()
    (folder / "hotpotqa.jsonl").write_text(json.dumps(prediction) + "\n")
    there = files(tmp_path)
    refused = kvgauge(
        "import",
        str(folder),
        "--format",
        "longbench",
        "--model",
        name,
        "--label",
        "snapkv",
        "--budget",
        "128",
        "--to",
        str(tmp_path / "imported"),
    )
    assert refused.code == 2 and "cannot name a folder" in refused.err
    assert files(tmp_path) == there


# --- sizes


@pytest.fixture
def bomb(tmp_path: Path) -> Iterator[Path]:
    """300 MB of zeros in a zip of 300 kB."""
    path = tmp_path / "data.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("data/trec.jsonl", "w", force_zip64=True) as member,
    ):
        for _ in range(100):
            member.write(bytes(10**6))
    yield path


def test_a_zip_that_is_small_and_unpacks_to_much_is_refused_unread(
    kvgauge: Command, bomb: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"of 100000000 bytes in \d+, more than 200 for one"):
        SOURCE.read(bomb, "trec.jsonl")
    refused = kvgauge(
        "task=longbench", f"task.data={bomb}", "task.datasets=[trec]", f"results_dir={tmp_path / 'results'}"
    )
    assert refused.code == 3 and refused.err.count("\n") == 1
    assert files(tmp_path) == {"data.zip"}


def test_a_zip_of_many_large_members_is_refused(bomb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_files, "MAX_RATIO", 10**6)
    monkeypatch.setattr(task_files, "MAX_ZIP_BYTES", 10**7)
    with pytest.raises(DataError, match="would have 100000000 bytes unpacked, more than the 10000000"):
        SOURCE.read(bomb, "trec.jsonl")


@pytest.mark.parametrize(("file", "code"), [("manifest.json", 5), ("scores.json", 5)])
def test_a_file_of_a_cell_that_is_too_large_or_too_deep_is_refused(
    kvgauge: Command, words: tuple[str, ...], tmp_path: Path, file: str, code: int
) -> None:
    assert kvgauge(*words).code == 0
    path = tmp_path / "results/tiny/tokens/snapkv-32" / file
    values = json.loads(path.read_text())
    for x in ('"' + "x" * 17_000_000 + '"', "[" * 100_000 + "]" * 100_000, "[" * 500 + "]" * 500, "NaN"):
        path.write_text(json.dumps(values | {"x": "X"}).replace('"X"', x))
        refused = kvgauge("verify", str(tmp_path / "results"))
        assert refused.code == code and refused.err.count("\n") == 1 and str(path) in refused.err, refused.err[:300]


# --- what is shown and kept


def test_escapes_reach_no_terminal_and_no_file(kvgauge: Command, words: tuple[str, ...], tmp_path: Path) -> None:
    assert kvgauge("method=[fullkv,snapkv]", *words[1:]).code == 0
    path = tmp_path / "results/tiny/tokens/snapkv-32/records.0.jsonl"
    first, *rest = [json.loads(line) for line in path.read_text().splitlines()]
    first |= {
        "text": ESCAPES,
        "error": ESCAPES,
        "alias_of": ESCAPES,
        "example_id": f"x{ESCAPES}",
        "group": {ESCAPES: ESCAPES},
    }
    rest[0] |= {"text": f"</script>{ESCAPES}=cmd()"}
    path.write_text("".join(json.dumps(record) + "\n" for record in [first, *rest]))
    shown = kvgauge("report", str(tmp_path / "results"))
    assert shown.code == 0, shown.err
    assert not controls(shown.out)
    for file in (tmp_path / "results/report").rglob("*.*"):
        if file.suffix in (".md", ".csv", ".tex", ".html"):
            text = file.read_text(encoding="utf-8")
            assert not controls(text), file.name
    rows = list(csv.reader((tmp_path / "results/report/tiny/tokens/table.csv").read_text().splitlines()))
    assert len({len(row) for row in rows}) == 1


def controls(text: str) -> set[str]:
    """Characters that a terminal obeys."""
    return {c for c in text if (not c.isprintable() and c not in "\n\t") or c == "\u202e"}


@pytest.mark.parametrize(
    ("place", "commands"),
    [
        (("settings", "task", "x"), ("verify", "report", "score", "compare", "status")),
        (("settings", "method", "class"), ("verify", "report")),
        (("settings", "model", "dtype"), ("verify",)),
        (("provenance", "command"), ("verify", "report", "status")),
        (("task_config", "_target_"), ("verify", "score", "compare")),
        (("task_config", ESCAPES), ("verify", "score")),
        (("model",), ("verify", "report", "score", "compare", "status")),
        ((ESCAPES,), ("verify", "report", "status")),
    ],
)
def test_escapes_of_a_manifest_reach_no_terminal(
    kvgauge: Command, words: tuple[str, ...], tmp_path: Path, place: tuple[str, ...], commands: tuple[str, ...]
) -> None:
    assert kvgauge("method=[fullkv,snapkv]", *words[1:]).code == 0
    path = tmp_path / "results/tiny/tokens/snapkv-32/manifest.json"
    manifest = json.loads(path.read_text())
    *above, last = place
    of = manifest
    for part in above:
        of = of[part]
    of[last] = ESCAPES
    path.write_text(json.dumps(manifest))
    for command in commands:
        done = kvgauge(command, str(tmp_path / "results"))
        assert not controls(done.out + done.err), (command, done)


def test_escapes_of_scores_and_of_the_run_log_reach_no_terminal(
    kvgauge: Command, words: tuple[str, ...], tmp_path: Path
) -> None:
    assert kvgauge(*words).code == 0
    task = tmp_path / "results/tiny/tokens"
    scores = json.loads((task / "snapkv-32/scores.json").read_text())
    for change in ({"alias_of": ESCAPES}, {ESCAPES: 1}, {"expected": ESCAPES}):
        (task / "snapkv-32/scores.json").write_text(json.dumps(scores | change))
        done = kvgauge("verify", str(tmp_path / "results"))
        assert done.code == 1 and "scores.json says" in done.out and not controls(done.out + done.err), done
    line = json.loads((task / "runs.0.jsonl").read_text().splitlines()[0])
    (task / "runs.0.jsonl").write_text(json.dumps(line | {"host": ESCAPES}) + "\n")
    (task / "snapkv-32/records.0.jsonl").write_text("")
    told = kvgauge("status", str(tmp_path / "results"))
    assert "was killed" in told.out and not controls(told.out + told.err), told.out


@pytest.mark.parametrize("setting", ["task.name", "method.snapkv.label", "model.note", "results_dir"])
def test_a_secret_of_the_environment_is_in_no_file(
    kvgauge: Command, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    refused = kvgauge(*words, f"{setting}='${{oc.env:HF_TOKEN}}'")
    assert refused.code == 2 and "${oc.env:HF_TOKEN} takes a value from the environment" in refused.err
    assert CANARY not in refused.err + refused.out
    done = kvgauge(*words, "tracker=wandb", "tracker.mode=offline", f"tracker.dir={tmp_path / 'wandb'}")
    assert (done.code, done.err) == (0, "")
    assert CANARY not in done.out
    assert [*tmp_path.rglob("*.wandb")]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]


def test_no_command_takes_a_secret_of_the_environment(
    kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    words = ["import", str(tmp_path), "--format", "longbench", "--set", "task.name='${oc.env:HF_TOKEN}'"]
    refused = kvgauge(*words)
    assert (
        refused.code == 2
        and "${oc.env:HF_TOKEN} takes a value from the environment" in refused.err
        and CANARY not in refused.err
    )


def test_a_manifest_cannot_ask_for_a_secret(
    kvgauge: Command, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    assert kvgauge(*words).code == 0
    path = tmp_path / "results/tiny/tokens/snapkv-32/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["task_config"]["prompts"] = "${oc.env:HF_TOKEN}"
    path.write_text(json.dumps(manifest))
    for command in ("score", "verify"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            done = kvgauge(command, str(tmp_path / "results"))
        assert done.code == 2 and CANARY not in done.out + done.err, (command, done)
