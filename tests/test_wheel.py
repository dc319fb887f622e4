"""The wheel: one top-level name, and everything a run needs in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import Command

ROOT = Path(__file__).parents[1]
CELL = ("method=snapkv", "budget=32", "task.lengths=[300]", "task.depths=[50]")
# What a user may have beside kvgauge, under names that are folders of a clone.
OWN = ("harness", "methods", "models", "tasks")
BESIDE = """
import importlib, sys
sys.argv = ["kvgauge", *{words!r}]
def ours():
    from kvgauge.__main__ import main
    main()
def theirs():
    for name in {own!r}:
        assert importlib.import_module(name).MINE and importlib.import_module(name + ".part").MINE
for step in ({order}):
    step()
theirs()
ours = [name for name in sys.modules if name.partition(".")[0] in {own!r}]
assert not [name for name in ours if not hasattr(sys.modules[name], "MINE")]
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (file,) = folder.glob("kvgauge-*.whl")
    return file


def test_the_wheel_holds_one_top_level_name(wheel: Path) -> None:
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"kvgauge"}


def test_the_wheel_carries_the_published_numbers(wheel: Path) -> None:
    published = {path.name for path in (ROOT / "results" / "published").glob("*.csv")}
    names = {Path(name) for name in zipfile.ZipFile(wheel).namelist()}
    assert published <= {name.name for name in names if name.parent == Path("kvgauge/results/published")}


def test_the_wheel_carries_all_templates(wheel: Path) -> None:
    folders = [path for path in (ROOT / "harness").rglob("templates")]
    templates = {f"kvgauge/{path.relative_to(ROOT)}" for folder in folders for path in folder.iterdir()}
    assert "kvgauge/harness/report/page/templates/report.html.j2" in templates
    assert templates <= set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_carries_the_words_of_the_built_in_haystack(wheel: Path) -> None:
    assert "kvgauge/tasks/needle/haystack_words.json" in zipfile.ZipFile(wheel).namelist()


def test_the_wheel_gives_the_console_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (entry,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "kvgauge = kvgauge.__main__:main" in archive.read(entry).decode()


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a new environment that has the wheel, and the libraries that lie here."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin/python"
    (site,) = (folder / "lib").glob("python*/site-packages")
    # As a line of a .pth file the folder is only searched: its own .pth file, which names the clone, is not read.
    (site / "libraries.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run([*install, "--ignore-installed"], check=True, capture_output=True)
    return python


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "200",
    }
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_an_installed_wheel_and_a_clone_write_the_same_cells(kvgauge: Command, installed: Path, tmp_path: Path) -> None:
    command = str(installed.parent / "kvgauge")
    done = run(command, *CELL, "results_dir=theirs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "prefills: 1; cells: 1; new records: 1" in done.stdout
    assert (tmp_path / "theirs/report/index.html").exists()
    ours = kvgauge(*CELL, f"results_dir={tmp_path / 'ours'}")
    assert ours.code == 0, ours.err
    cells = [tmp_path / folder / "tiny/needle/snapkv-32" for folder in ("ours", "theirs")]
    records, other_records = ((cell / "records.0.jsonl").read_text() for cell in cells)
    assert records == other_records
    manifests = [json.loads((cell / "manifest.json").read_text()) for cell in cells]
    ours_made, theirs_made = (manifest.pop("provenance") for manifest in manifests)
    assert ours_made["fingerprint"] == theirs_made["fingerprint"]
    assert manifests[0] == manifests[1] and manifests[0]["settings"]["method"]["class"] == "methods.snapkv.SnapKV"
    again = kvgauge(*CELL, f"results_dir={tmp_path / 'theirs'}")
    assert again.code == 0 and "new records: 0" in again.out, again.err
    for words in (("verify", "ours"), ("score", "ours"), ("show", "method", "snapkv")):
        done = run(command, *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("order", ["theirs, ours", "ours, theirs"])
def test_a_users_own_packages_and_an_installed_wheel_leave_each_other_alone(
    order: str, installed: Path, tmp_path: Path
) -> None:
    for name in OWN:
        (tmp_path / name).mkdir()
        for module in ("__init__", "part"):
            (tmp_path / name / f"{module}.py").write_text("MINE = True\n")
    code = BESIDE.format(words=[*CELL, "dry_run=true"], own=OWN, order=order)
    done = run(str(installed), "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "prefills: 1 " in done.stdout


@pytest.mark.slow
def test_a_method_of_ones_own_runs_beside_an_installed_wheel(installed: Path, tmp_path: Path) -> None:
    command = str(installed.parent / "kvgauge")
    written = run(command, "new", "method", "outer", "--method-path", "mine", cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    done = run(command, "method_path=mine", "method=outer", *CELL[1:], "dry_run=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    tested = run(str(installed), "-m", "pytest", "-q", "-p", "no:cacheprovider", "mine/test_outer.py", cwd=tmp_path)
    assert tested.returncode == 0, tested.stdout


@pytest.mark.parametrize("command", [["run.py"], ["-m", "kvgauge"]])
def test_a_clone_runs_by_script_and_by_module(command: list[str]) -> None:
    done = subprocess.run([sys.executable, *command, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "method=pyramidkv budget=128" in done.stdout
