"""LongBench's files: folders, zips and the hub's cache; what is wrong with them is said in one line."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from harness.config.build import build, task_config
from harness.errors import ConfigError, DataError, KvgaugeError
from tasks import files
from tasks.files import Source
from tasks.longbench.data import FIELDS, RECORDS, RECORDS_E, features, load, parse, survey
from tasks.longbench.files import HUB, SOURCE
from tasks.longbench.metrics import METRIC_OF
from tasks.longbench.suite import LongBench

ROOT = Path(__file__).parents[3]
REAL = ROOT.parent / "shared/data/longbench"


def record(dataset: str = "qasper", number: int = 0, /, **changes: Any) -> dict[str, Any]:
    """A record of the published form; ``...`` as a change leaves the field out."""
    base = dataset.removesuffix("_e")
    paragraph = {"passage_retrieval_en": ["Paragraph 1"], "passage_retrieval_zh": ["段落1"]}
    values = {
        "input": f"Which number is it?\u2028No {number}",
        "context": "One line.\nAnother\x85 with {braces}. 数字",
        "answers": paragraph.get(base, [f"number {number}", "yes"]),
        "length": 9 + number,
        "dataset": base,
        "language": "en",
        "all_classes": ["yes", "no"] if base in ("trec", "lsht") else None,
        "_id": f"{number:048x}",
    } | changes
    return {field: value for field, value in values.items() if value is not ...}


def lines(dataset: str = "qasper", count: int = 2) -> bytes:
    rows = (json.dumps(record(dataset, n), ensure_ascii=n % 2 == 0) for n in range(count))
    return "".join(row + "\n" for row in rows).encode()


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def longbench(**knobs: Any) -> LongBench:
    suite = build({**task_config("longbench"), **knobs})
    assert isinstance(suite, LongBench)
    return suite


def fail(call: Callable[[], object], kind: type[KvgaugeError] = DataError) -> str:
    """The message of the error, which is one short line."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


# --- what is read


def test_folder_and_zip_of_any_layout_give_the_same_records(tmp_path: Path) -> None:
    raw = lines(count=3)
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat/qasper.jsonl").write_bytes(raw)
    (tmp_path / "deep/data").mkdir(parents=True)
    (tmp_path / "deep/data/qasper.jsonl").write_bytes(raw.replace(b"\n", b"\r\n"))
    other = {"__MACOSX/qasper.jsonl": b"x", "data/": b"", "a/b/qasper.jsonl": b"x"}
    places = [
        tmp_path / "flat",
        tmp_path / "deep",
        make_zip(tmp_path / "a.zip", {"data/qasper.jsonl": raw, **other}),
        make_zip(tmp_path / "b.zip", {"qasper.jsonl": b"\xef\xbb\xbf" + raw.rstrip(b"\n") + b"\n\n"}),
    ]
    found = [load(SOURCE.locate(str(place)), "qasper") for place in places]
    assert [row for row in found[0].rows] == [record("qasper", n) for n in range(3)]
    assert all(list(each.rows) == list(found[0].rows) and each.sha256 == found[0].sha256 for each in found)
    assert all(each.rows.features == features() for each in found)


def test_separators_inside_a_text_do_not_end_a_record() -> None:
    raw = json.dumps(record(context="a\u2028b\u2029c\x85d\x0be"), ensure_ascii=False).encode()
    assert parse(raw, "qasper")[0]["context"] == "a\u2028b\u2029c\x85d\x0be"


def test_hash_changes_with_every_field_and_not_with_their_order(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "input": "x", "context": "x", "answers": ["x"], "length": 1, "dataset": "qasper_e", "language": "zh",
        "all_classes": ["x"], "_id": "x",
    }  # fmt: skip
    assert set(changes) == set(FIELDS)

    def digest(row: dict[str, Any]) -> str:
        (tmp_path / "qasper_e.jsonl").write_text(json.dumps(row))
        return load(tmp_path, "qasper_e").sha256

    base = digest(record())
    assert digest(dict(reversed(record().items()))) == base
    assert digest(record() | {"extra": 1}) == base
    assert len({digest(record(**{field: value})) for field, value in changes.items()} | {base}) == 9


def test_all_34_datasets_are_read_from_one_zip_and_counted(tmp_path: Path) -> None:
    datasets = (*RECORDS, *RECORDS_E)
    assert (len(RECORDS), len(RECORDS_E), sum(RECORDS.values())) == (21, 13, 4750)
    assert list(RECORDS) == list(METRIC_OF)
    path = make_zip(tmp_path / "data.zip", {f"data/{name}.jsonl": lines(name) for name in datasets})
    assert survey(path) == dict.fromkeys(datasets, 2)
    rows = load(path, "trec_e").rows
    assert rows[0]["all_classes"] == ["yes", "no"]
    assert rows[0]["dataset"] == "trec"


def test_survey_tells_missing_from_damaged(tmp_path: Path) -> None:
    (tmp_path / "qasper.jsonl").write_bytes(lines()[:-20])
    (tmp_path / "trec.jsonl").write_bytes(lines("trec", 5))
    found = survey(tmp_path)
    assert found["trec"] == 5
    assert found["lsht"] is None
    assert isinstance(found["qasper"], DataError)


@pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared")
def test_real_files_are_read_whole() -> None:
    assert {name: count for name, count in survey(REAL).items() if count} == {
        "multifieldqa_zh": 200,
        "multi_news": 200,
        "passage_retrieval_zh": 200,
    }
    rows = load(REAL, "multi_news").rows
    assert sum(len(f"{row['context']} {' '.join(row['answers'])}".split()) == row["length"] for row in rows) == 200


# --- the hub's cache


def cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, offline; the place of data.zip in it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return folder / f"datasets--{HUB.repository.replace('/', '--')}/snapshots/{HUB.revision}/data.zip"


def test_cached_zip_is_used_without_a_network_and_only_if_it_is_the_pinned_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cache(tmp_path, monkeypatch)
    path.parent.mkdir(parents=True)
    make_zip(path, {"data/qasper.jsonl": lines()})
    message = fail(lambda: SOURCE.locate(None))
    assert "not cb45b11a4133c6bc1d6a44b0f8e701335ff1e543195db1103472e575857f7f64: delete it" in message
    right = Source("", replace(HUB, sha256=message.split("SHA-256 ")[1][:64]))
    assert right.locate(None) == path
    assert load(right.locate(None), "qasper").rows.num_rows == 2


def test_without_cache_and_network_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache(tmp_path, monkeypatch)
    assert "set task.data to a local data.zip or a folder" in fail(lambda: SOURCE.locate(None))


# --- what is refused


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "holds no record"),
        (b"\n \n", "holds no record"),
        (
            lines()[:-30],
            "line 2 of qasper.jsonl is not JSON (Unterminated string starting at), as in a file that was cut",
        ),
        (lines() + b"{", "line 3 of qasper.jsonl is not JSON"),
        (b"[1]", "line 1 of qasper.jsonl is [1], not a record"),
        (b"[" * 100_000, "is not JSON (RecursionError)"),
        (b'{"input": "caf\xe9"}', "line 1 of qasper.jsonl is not UTF-8 at byte 14"),
        (b"PK\x03\x04" + bytes(50), "is not JSON"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is not JSON"),
        (json.dumps(record(context="\ud800")).encode(), "has context='\\ud800', which is not a text"),
        *[
            (json.dumps(record(**{field: ...})).encode(), f"line 1 of qasper.jsonl has no field {field!r}")
            for field in FIELDS
        ],
        (json.dumps(record(input=None)).encode(), "has input=None, which is not a text"),
        (json.dumps(record(answers="yes")).encode(), "has answers='yes', which is not a list of texts"),
        (json.dumps(record(answers=[1])).encode(), "has answers=[1], which is not a list of texts"),
        (json.dumps(record(length="9")).encode(), "has length='9', which is not a whole number"),
        (json.dumps(record(length=True)).encode(), "has length=True, which is not a whole number"),
        (json.dumps(record(length=2**64)).encode(), "which is not a whole number"),
        (json.dumps(record(all_classes="a")).encode(), "which is not a list of texts or null"),
        (json.dumps(record(_id="")).encode(), "has _id='', which is not a text"),
        (json.dumps(record("trec")).encode(), "is of dataset 'trec'"),
        (json.dumps(record()).encode() * 2, "is not JSON (Extra data)"),
        ((json.dumps(record()) + "\n").encode() * 2, "line 2 of qasper.jsonl repeats the _id of line 1"),
    ],
)
def test_bad_file_is_refused_in_one_line(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "qasper.jsonl").write_bytes(raw)
    from_folder = fail(lambda: load(tmp_path, "qasper"))
    assert message in from_folder
    assert fail(lambda: load(make_zip(tmp_path / "x.zip", {"data/qasper.jsonl": raw}), "qasper")) == from_folder


@pytest.mark.parametrize(
    ("dataset", "answer"),
    [("passage_retrieval_en", "7"), ("passage_retrieval_en_e", "段落7"), ("passage_retrieval_zh", "七")],
)
def test_an_answer_that_names_no_paragraph_is_refused_with_its_line(dataset: str, answer: str) -> None:
    good = "段落7" if dataset.endswith("zh") else "Paragraph 7"
    base = dataset.removesuffix("_e")
    raw = "".join(json.dumps(record(base, answers=[each], _id=each)) + "\n" for each in (good, answer)).encode()
    message = fail(lambda: parse(raw, dataset))
    assert message.startswith(f"line 2 of {dataset}.jsonl has the answer {answer!r}, which names no paragraph: ")


def test_classification_without_classes_is_refused() -> None:
    assert "trec is scored by its classes" in fail(
        lambda: parse(json.dumps(record("trec", all_classes=None)).encode(), "trec")
    )
    assert "lsht is scored by its classes" in fail(
        lambda: parse(json.dumps(record("lsht", all_classes=[])).encode(), "lsht")
    )


@pytest.mark.parametrize("place", ["qasper.jsonl", "data/qasper.jsonl", "LongBench/data/qasper.jsonl"])
def test_a_file_may_lie_in_one_more_folder_of_a_zip_or_of_a_folder(tmp_path: Path, place: str) -> None:
    path = make_zip(tmp_path / "data.zip", {place: lines()})
    (tmp_path / "folder" / place).parent.mkdir(parents=True)
    (tmp_path / "folder" / place).write_bytes(lines())
    assert load(path, "qasper").sha256 == load(tmp_path / "folder", "qasper").sha256
    assert survey(tmp_path / "folder")["qasper"] == survey(path)["qasper"] == 2


def test_a_file_that_lies_in_two_places_is_refused(tmp_path: Path) -> None:
    for place in ("a/data", "b/data"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "qasper.jsonl").write_bytes(lines())
    assert "holds qasper.jsonl 2 times" in fail(lambda: load(tmp_path, "qasper"))


def test_one_file_is_data_for_its_dataset_alone(tmp_path: Path) -> None:
    file = tmp_path / "qasper.jsonl"
    file.write_bytes(lines())
    assert load(file, "qasper").sha256 == load(tmp_path, "qasper").sha256
    assert survey(file)["qasper"] == 2 and survey(file)["trec"] is None
    assert "is one file, and trec.jsonl is asked for: use task.datasets=[qasper]" in fail(lambda: load(file, "trec"))


def test_missing_file_and_unknown_dataset_are_named(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "data.zip", {"data/trec.jsonl": lines("trec"), "a/b/c/qasper.jsonl": lines()})
    for place in (path, tmp_path):
        assert "holds no qasper.jsonl: add it, or leave qasper out of task.datasets" in fail(
            lambda p=place: load(p, "qasper")
        )
    assert "'squad' is not a dataset" in fail(lambda: load(path, "squad"), ConfigError)


def test_all_datasets_that_are_missing_are_named_at_once_with_those_that_are_there(tmp_path: Path) -> None:
    for name in ("trec", "lcc"):
        (tmp_path / f"{name}.jsonl").write_bytes(lines(name))
    path = make_zip(tmp_path / "data.zip", {f"data/{name}.jsonl": lines(name) for name in ("trec", "lcc")})
    for place in (path, tmp_path):
        suite = longbench(data=str(place), datasets=["qasper", "trec", "hotpotqa", "lcc", "2wikimqa"])
        said = fail(lambda s=suite: [task.settings() for task in s.tasks()])
        assert said == (
            f"{place} lacks 3 of 5 files, qasper.jsonl, hotpotqa.jsonl, 2wikimqa.jsonl: add them, or use "
            "task.datasets=[trec,lcc]"
        )


def test_a_hub_out_of_reach_is_asked_once_however_many_datasets_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unreachable(*_: Any, **__: Any) -> None:
        asked.append(1)
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    files._download.cache_clear()
    for task in longbench(data=None, datasets="paper").tasks():
        assert "cannot be downloaded (OSError): set task.data" in fail(lambda t=task: t.settings())
    assert len(asked) == 1
    files._download.cache_clear()


@pytest.mark.parametrize(
    "name",
    ["../data/qasper.jsonl", "/etc/qasper.jsonl", "data/../../qasper.jsonl", "..\\qasper.jsonl", "C:/qasper.jsonl"],
)
def test_zip_with_a_member_outside_of_it_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    path = make_zip(tmp_path / "data.zip", {name: lines(), "data/qasper.jsonl": lines()})
    for call in (lambda: load(path, "qasper"), lambda: survey(path)):
        assert "points outside of it" in fail(call)
    assert [file.name for file in tmp_path.iterdir()] == ["data.zip"]


def test_zip_that_was_cut_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "data.zip", {"data/qasper.jsonl": lines(count=50)})
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "is no zip, or was cut" in fail(lambda: load(path, "qasper"))


def test_zip_with_damaged_bytes_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "data.zip", {"data/qasper.jsonl": lines(count=50)})
    whole = bytearray(path.read_bytes())
    whole[200] ^= 0xFF
    path.write_bytes(whole)
    assert "qasper.jsonl in" in (message := fail(lambda: load(path, "qasper")))
    assert "is damaged or encrypted" in message


def test_encrypted_and_doubled_members_are_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "data.zip", {"qasper.jsonl": lines()})
    whole = path.read_bytes()
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = whole.index(signature) + flags
        whole = whole[:place] + bytes([whole[place] | 1]) + whole[place + 1 :]
    path.write_bytes(whole)
    assert "is damaged or encrypted" in fail(lambda: load(path, "qasper"))
    doubled = make_zip(tmp_path / "doubled.zip", {"qasper.jsonl": lines(), "data/qasper.jsonl": lines()})
    assert "holds qasper.jsonl 2 times" in fail(lambda: load(doubled, "qasper"))


def test_too_large_a_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "qasper.jsonl").write_bytes(lines(count=20))
    path = make_zip(tmp_path / "data.zip", {"qasper.jsonl": b" " * 10_000, "data/trec.jsonl": lines("trec")})
    assert path.stat().st_size < 1000
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 2000)
    assert "more than the 2000 that are read" in fail(lambda: load(tmp_path, "qasper"))
    assert "has 10000 bytes, more than the 2000" in fail(lambda: load(path, "qasper"))
    assert load(path, "trec").rows.num_rows == 2
    monkeypatch.setattr(files, "MAX_MEMBERS", 1)
    assert "has 2 members, more than 1" in fail(lambda: load(path, "trec"))


@pytest.mark.parametrize("data", ["missing", "nul\0l", "x" * 5000, "~nobody-of-this-name/x"])
def test_path_that_is_nothing_is_refused(data: str) -> None:
    assert "task.data=" in fail(lambda: SOURCE.locate(data))


def test_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(lines())
    message = fail(lambda: load(SOURCE.locate(str(tmp_path / "data.zip")), "qasper"))
    assert "is no zip" in message
    assert "or a folder with its .jsonl files" in message
