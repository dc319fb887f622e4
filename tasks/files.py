"""A benchmark's files, found in a folder, a zip, the hub's cache or the hub; a zip is read without unpacking it."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from harness.errors import DataError
from tasks.checks import short

MAX_FILE_BYTES = 256 * 2**20
MAX_ZIP_BYTES = 2 * 2**30
MAX_RATIO = 200
"""Largest compression ratio of a member of a zip; text has 3 to 10, a zip bomb a thousand."""
MAX_MEMBERS = 10_000
_NESTED = ("data/*.jsonl", "*/data/*.jsonl")
"""Where else files lie below a folder: unpacking may put LongBench's ``data`` into one more folder."""


@dataclass(frozen=True)
class Hub:
    """A file of a dataset on the hub, at one revision.

    Attributes:
        repository: the dataset: ``zai-org/LongBench``.
        revision: the commit.
        file: the file's name.
        sha256: its hash; None if none was published.
        instead: what to do without it: ``set task.data to a local data.zip``.
    """

    repository: str
    revision: str
    file: str
    sha256: str | None
    instead: str

    def cached(self) -> Path | None:
        """The path of the file in the hub's cache, or None; its hash is not checked."""
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(self.repository, self.file, revision=self.revision, repo_type="dataset")
        return Path(path) if isinstance(path, str) else None

    def fetch(self) -> Path:
        """The path of the file, downloaded into the hub's cache if need be, its hash checked.

        Raises:
            DataError: the file is not in the cache and cannot be downloaded, or has another hash.
        """
        path = self.cached()
        if path is None:
            path, reason = _download(self.repository, self.file, self.revision)
            if path is None:
                raise DataError(
                    f"{self.file} of {self.repository} is not in the hub's cache and cannot be downloaded ({reason}): "
                    f"{self.instead}"
                )
        stat = path.stat()
        if self.sha256 and (got := _file_sha256(path, stat.st_size, stat.st_mtime_ns)) != self.sha256:
            raise DataError(
                f"{path} has SHA-256 {got}, not {self.sha256}: delete it and download again, or set task.data to a "
                "copy you trust"
            )
        return path


@lru_cache
def _download(repository: str, file: str, revision: str) -> tuple[Path | None, str]:
    """The downloaded file, or why there is none; asked once, as the hub's client takes half a minute to give up."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, file, revision=revision, repo_type="dataset")), ""
    except (OSError, ValueError) as error:
        return None, type(error).__name__


@dataclass(frozen=True)
class Source:
    """The files of one benchmark.

    Attributes:
        remedy: end of error messages: ``use LongBench's own data.zip, or a folder with its .jsonl files``.
        hub: where they are if no path is given; None if they come from nowhere.
    """

    remedy: str
    hub: Hub | None = None

    def locate(self, data: str | None) -> Path:
        """The path of the data: ``data`` if given, else from the hub's cache, else from the hub.

        Raises:
            DataError: the data is nowhere, or is not the pinned file.
        """
        if data is None:
            if self.hub is None:
                raise DataError(f"task.data=null, and this benchmark's files come from nowhere else: {self.remedy}")
            return self.hub.fetch()
        try:
            path = Path(data).expanduser()
            if path.is_dir() or path.is_file():
                return path
        except (OSError, RuntimeError, ValueError) as error:  # unreadable, no home folder for ~, a null byte
            raise DataError(
                f"task.data={short(data)} cannot be read ({type(error).__name__}): give a readable folder or file"
            ) from error
        raise DataError(f"task.data={short(data)} does not exist: {self.remedy}")

    def names(self, path: Path) -> set[str]:
        """The names of the files that ``read`` can find.

        Raises:
            DataError: the path cannot be read.
        """
        if path.is_dir():
            try:
                return {file.name for pattern in ("*", *_NESTED) for file in path.glob(pattern) if file.is_file()}
            except OSError as error:
                raise DataError(f"{path} cannot be listed ({type(error).__name__}): make it readable") from error
        if path.suffix == ".jsonl":
            return {path.name}
        with self._open_zip(path) as archive:
            return {PurePosixPath(info.filename).name for info in self._members(archive, path)}

    def read(self, path: Path, name: str, asked: Sequence[str] = ()) -> bytes:
        """The contents of one file.

        Args:
            path: a folder that contains the file, itself or in its ``data`` or ``*/data``; a zip that contains it, at
                most two folders deep; or the file itself.
            name: name of the file: ``trec.jsonl``.
            asked: names of all files that are asked for, so that an error names all that are missing.

        Raises:
            DataError: the file is missing, too large or damaged, or cannot be read.
        """
        if path.is_dir():
            return self._read_folder(path, name, asked)
        if path.suffix != ".jsonl":
            return self._read_zip(path, name, asked)
        if path.name != name:
            raise DataError(
                f"{path} is one file, and {name} is asked for: use task.datasets=[{path.stem}], or a folder with both"
            )
        return self.read_file(path)

    def read_file(self, file: Path, limit: int | None = None) -> bytes:
        """The contents of a file that is there.

        Args:
            file: the file.
            limit: the most bytes that are read; None for ``MAX_FILE_BYTES``.

        Raises:
            DataError: it is too large or cannot be read.
        """
        try:
            self._check_size(file.stat().st_size, file, limit)
            return file.read_bytes()
        except OSError as error:
            raise DataError(f"{file} cannot be read ({type(error).__name__}): make it readable") from error

    def _read_folder(self, path: Path, name: str, asked: Sequence[str]) -> bytes:
        for file in (path / name, path / "data" / name):
            if file.is_file():
                return self.read_file(file)
        nested = [file for pattern in _NESTED for file in path.glob(pattern) if file.name == name and file.is_file()]
        if not nested:
            raise DataError(self._missing(path, name, asked))
        if len(nested) > 1:
            raise DataError(f"{path} holds {name} {len(nested)} times: {self.remedy}")
        return self.read_file(nested[0])

    def _read_zip(self, path: Path, name: str, asked: Sequence[str]) -> bytes:
        with self._open_zip(path) as archive:
            every = [info for info in self._members(archive, path) if PurePosixPath(info.filename).name == name]
            # LongBench's own layout comes before one more folder around it.
            named = [info for info in every if len(PurePosixPath(info.filename).parts) <= 2] or every
            if not named:
                raise DataError(self._missing(path, name, asked))
            if len(named) > 1:
                raise DataError(f"{path} holds {name} {len(named)} times: {self.remedy}")
            self._check_size(named[0].file_size, f"{name} in {path}")
            try:
                # This returns no more bytes than the size just checked, and fails if the checksum differs.
                return archive.read(named[0])
            except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
                raise DataError(
                    f"{name} in {path} is damaged or encrypted ({type(error).__name__}): {self.remedy}"
                ) from error

    def _open_zip(self, path: Path) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise DataError(f"{path} is no zip, or was cut ({type(error).__name__}): {self.remedy}") from error

    def _members(self, archive: zipfile.ZipFile, path: Path) -> Sequence[zipfile.ZipInfo]:
        """The files of a zip at its top level or at most two folders deep.

        Raises:
            DataError: a member would be unpacked outside the zip's folder, or there are too many members, or they are
                too large.
        """
        members = archive.infolist()
        if len(members) > MAX_MEMBERS:
            raise DataError(f"{path} has {len(members)} members, more than {MAX_MEMBERS}: {self.remedy}")
        if (size := sum(info.file_size for info in members)) > MAX_ZIP_BYTES:
            raise DataError(
                f"{path} would have {size} bytes unpacked, more than the {MAX_ZIP_BYTES} that are read: {self.remedy}"
            )
        for info in members:
            if info.file_size > MAX_RATIO * max(info.compress_size, 4096):
                raise DataError(
                    f"{path} has a member {short(info.filename)} of {info.file_size} bytes in {info.compress_size}, "
                    f"more than {MAX_RATIO} for one: {self.remedy}"
                )
            name = PurePosixPath(info.filename)
            if name.is_absolute() or ".." in name.parts or "\\" in info.filename or ":" in info.filename:
                raise DataError(
                    f"{path} has a member {short(info.filename)}, which points outside of it: {self.remedy}"
                )
        return [
            i
            for i in members
            if not i.is_dir() and len(PurePosixPath(i.filename).parts) <= 3 and not i.filename.startswith("__MACOSX")
        ]

    def _missing(self, path: Path, name: str, asked: Sequence[str]) -> str:
        there = self.names(path)
        lacking = [one for one in asked if one not in there]
        if len(lacking) < 2:
            return f"{path} holds no {name}: add it, or leave {name.removesuffix('.jsonl')} out of task.datasets"
        rest = ",".join(one.removesuffix(".jsonl") for one in asked if one in there)
        others = f"use task.datasets=[{rest}]" if rest else "give another folder"
        return f"{path} lacks {len(lacking)} of {len(asked)} files, {', '.join(lacking)}: add them, or {others}"

    def _check_size(self, size: int, what: object, limit: int | None = None) -> None:
        most = limit or MAX_FILE_BYTES
        if size > most:
            raise DataError(f"{what} has {size} bytes, more than the {most} that are read: {self.remedy}")


@lru_cache(maxsize=4)
def _file_sha256(path: Path, size: int, modified: int) -> str:
    """The hash of a file, cached as long as its size and modification time stay the same."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
