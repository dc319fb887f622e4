"""Where LongBench's files are: a data.zip on the hub, at one revision."""

from __future__ import annotations

from tasks.files import Hub, Source

REMEDY = "use LongBench's own data.zip, or a folder with its .jsonl files"
HUB = Hub(
    repository="zai-org/LongBench",
    revision="5e628be450b7e67fb7ae6e201bd6d8f7056f7672",
    file="data.zip",
    # Of the file's 113,932,529 bytes, as quoted in the notes of a public harness.
    sha256="cb45b11a4133c6bc1d6a44b0f8e701335ff1e543195db1103472e575857f7f64",
    instead="set task.data to a local data.zip or a folder with its .jsonl files",
)
SOURCE = Source(REMEDY, HUB)
