"""The wheel: one top-level name, and everything a run needs in it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUN = """
import sys
sys.path[:] = [{wheel!r}, *(p for p in sys.path if p != {root!r})]
sys.argv = ["kvgauge", "method=snapkv", "budget=32", "task.lengths=[300]", "task.depths=[50]", "results_dir=results"]
from kvgauge.__main__ import main
try:
    main()
finally:
    import harness, methods, tasks
    print([m.__file__ for m in (harness, methods, tasks)])
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


def test_the_wheel_gives_the_console_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (entry,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "kvgauge = kvgauge.__main__:main" in archive.read(entry).decode()


def test_the_wheel_runs_by_itself_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    unpacked = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(unpacked)
    code = RUN.format(wheel=str(unpacked), root=str(ROOT))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "prefills: 1; cells: 1; new records: 1" in done.stdout
    assert done.stdout.strip().splitlines()[-1].count(str(unpacked / "kvgauge")) == 3
    assert (tmp_path / "results/tiny/needle/snapkv-32/scores.json").exists()
    assert (tmp_path / "results/report/index.html").exists()


@pytest.mark.parametrize("command", [["run.py"], ["-m", "kvgauge"]])
def test_a_clone_runs_by_script_and_by_module(command: list[str]) -> None:
    done = subprocess.run([sys.executable, *command, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "python run.py method=pyramidkv budget=128" in done.stdout
