"""The rooms of the house, read from the code: ``make rooms`` writes them into docs/architecture.md.

python docs/rooms.py            writes both parts
python docs/rooms.py --print    prints them
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/architecture.md"
FOLDERS = ("harness", "methods", "tasks")


def phrase(file: Path) -> str:
    """The first sentence of a module's docstring, in one line without its full stop."""
    text = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".")


def modules(folder: Path) -> list[Path]:
    """Python files of a folder alone, without an empty ``__init__.py``."""
    return [file for file in sorted(folder.glob("*.py")) if file.name != "__init__.py" or phrase(file)]


def rooms() -> list[Path]:
    """Every folder with Python files, the ones above first."""
    folders = [ROOT / name for name in FOLDERS]
    inside = [path.parent for folder in folders for path in folder.rglob("*.py")]
    return sorted({*folders, *inside}, key=lambda folder: folder.relative_to(ROOT).parts)


def tree() -> str:
    """Each room with its files and a phrase for each."""
    lines = []
    for room in rooms():
        if not (files := modules(room)):
            continue
        lines.append(f"{room.relative_to(ROOT)}/")
        width = max(len(file.name) for file in files)
        lines += [f"    {file.name:{width}}  {phrase(file)}" for file in files]
    return "\n".join(["```text", *lines, "```"])


def sizes() -> str:
    """A table of rooms: files, lines, the longest file."""
    rows = ["| room | files | lines | mean | longest file |", "|---|---:|---:|---:|---|"]
    everything = []
    for room in rooms():
        counts = {file.name: len(file.read_text("utf-8").splitlines()) for file in modules(room)}
        if counts:
            everything += counts.values()
            longest = max(counts, key=counts.__getitem__)
            total = sum(counts.values())
            mean = total / len(counts)
            name = room.relative_to(ROOT)
            rows.append(f"| `{name}` | {len(counts)} | {total:,} | {mean:.0f} | `{longest}` {counts[longest]} |")
    mean = sum(everything) / len(everything)
    rows.append(f"| all | {len(everything)} | {sum(everything):,} | {mean:.0f} | {max(everything)} |")
    return "\n".join(rows)


def written(page: str) -> str:
    """The page with both parts as they are now."""
    for name, part in (("tree", tree()), ("sizes", sizes())):
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = page.partition(start)
        page = f"{before}{start}{part}\n{end}{rest.partition(end)[2]}"
    return page


if __name__ == "__main__":
    if sys.argv[1:] == ["--print"]:
        print(tree(), sizes(), sep="\n\n")
    else:
        PAGE.write_text(written(PAGE.read_text("utf-8")), encoding="utf-8")
