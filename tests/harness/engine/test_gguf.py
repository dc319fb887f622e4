"""A model in a GGUF file is the model that transformers reads from it, and loads fast from the second time on; a file
that is broken or would be read as another model is refused in one line."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.engine import gguf as reading
from harness.engine.loading import load_model
from harness.engine.model_spec import ModelSpec, all_end_ids
from harness.errors import KvgaugeError, ModelError
from tests.conftest import Command
from tests.harness.gguf_file import SMOLLM2, TEMPLATE, needs_smollm2, write
from tests.harness.tiny import Cell, decode_together, methods

PROMPTS, STEPS = 20, 16
TEXTS = ("The <|start|>ninth  theme.\n\n 12 34\tthé", "don't we'll 1234567", "", " ")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kvgauge" / "gguf"


@pytest.fixture
def little(tmp_path: Path) -> Path:
    return write(tmp_path / "little.gguf")


def spec_of(path: Path, **settings: Any) -> ModelSpec:
    return ModelSpec(str(path), dtype="float32", device="cpu", **settings)


def equals_generate(path: Path, prompts: list[list[int]], steps: int) -> None:
    """FullKV gives what transformers' own greedy ``generate`` gives on the model that it reads itself."""
    spec = spec_of(path)
    ours = load_model(spec, spec.config())
    stock: Any = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    cells = [Cell(tuple(prompt), methods()["fullkv"], len(prompt)) for prompt in prompts]
    found, _ = decode_together(ours, cells, max_new_tokens=steps)
    for prompt, outcome in zip(prompts, found, strict=True):
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            whole = stock.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=steps,
                eos_token_id=None,
                pad_token_id=0,
            )
        assert list(outcome.tokens) == whole[0, len(prompt) :].tolist()


def test_full_cache_equals_generate_of_transformers_on_20_prompts(little: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 120, (PROMPTS,), generator=generator).tolist()
    equals_generate(little, [torch.randint(3, 260, (n,), generator=generator).tolist() for n in lengths], STEPS)


@pytest.mark.slow
@needs_smollm2
def test_full_cache_equals_generate_of_transformers_on_20_prompts_of_the_real_model() -> None:
    from tasks.needle.haystack import builtin_text

    tokenizer = spec_of(SMOLLM2).tokenizer()
    ids = cast("list[int]", tokenizer.encode(builtin_text()[:40_000]))
    equals_generate(SMOLLM2, [ids[37 * n : 37 * n + 20 + 4 * n] for n in range(PROMPTS)], STEPS // 2)


def test_the_tokenizer_is_the_one_that_transformers_reads(little: Path) -> None:
    ours, stock = spec_of(little).tokenizer(), AutoTokenizer.from_pretrained(little.parent, gguf_file=little.name)
    assert [ours.encode(text) for text in TEXTS] == [stock.encode(text) for text in TEXTS]
    assert ours.encode("<|start|> the") == [1, 259, 260]
    assert ours.chat_template == stock.chat_template == TEMPLATE


def test_a_model_is_known_by_the_hash_of_its_file_and_by_its_end_tokens(little: Path) -> None:
    spec = spec_of(little)
    config = spec.config()
    assert spec.label == "little" and spec.is_local
    assert spec.identity(config) == {
        "weights": hashlib.sha256(little.read_bytes()).hexdigest(),
        "dtype": "float32",
    }
    assert all_end_ids(spec.generation(config).eos_token_id, config, spec.tokenizer()) == {2}


def test_what_was_read_is_kept_and_read_no_second_time(
    little: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(little)
    first = load_model(spec, spec.config()).state_dict()
    monkeypatch.setattr(reading, "_make", lambda *_: pytest.fail("the file is read again"))
    second = load_model(spec, spec.config()).state_dict()
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    assert sorted(path.name for path in (folder / "float32").iterdir()) == ["config.json", "model.safetensors"]
    assert not list(cache.glob(".*")), "nothing half made stays"


def test_what_a_killed_process_left_is_cleared_away(little: Path, cache: Path) -> None:
    left = cache / f".{reading.model_folder(str(little)).name}-left"
    shutil.rmtree(reading.model_folder(str(little)))
    (left / "made").mkdir(parents=True)
    reading.model_folder(str(little))
    assert not left.exists()


def test_weights_are_kept_in_the_dtype_that_is_asked_for(little: Path, cache: Path) -> None:
    spec = ModelSpec(str(little), dtype="bfloat16", device="cpu")
    assert {weight.dtype for weight in load_model(spec, spec.config()).parameters()} == {torch.bfloat16}
    assert [path.parent.name for path in cache.rglob("model.safetensors")] == ["bfloat16"]


def test_configuration_and_tokenizer_are_read_without_the_weights(little: Path, cache: Path) -> None:
    spec = spec_of(little)
    spec.config(), spec.tokenizer()
    assert not list(cache.glob("*/float32"))


def test_processes_that_begin_together_read_a_file_once(
    little: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    write_config = reading._write_config
    monkeypatch.setattr(
        reading, "_write_config", lambda alone, to, path: (written.append(to), write_config(alone, to, path))
    )
    threads = [threading.Thread(target=lambda: reading.model_folder(str(little))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) == 1


def test_a_changed_file_is_another_model(little: Path) -> None:
    before = spec_of(little).identity(spec_of(little).config())
    write(little, more=lambda writer: writer.add_description("another"))
    os.utime(little, ns=(1, 1))
    assert spec_of(little).identity(spec_of(little).config()) != before


def cut(share: float) -> Callable[[Path], object]:
    """Keeps the first part of a file."""
    return lambda path: path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def overwritten(at: int, by: bytes) -> Callable[[Path], object]:
    def work(path: Path) -> None:
        whole = bytearray(path.read_bytes())
        whole[at : at + len(by)] = by
        path.write_bytes(bytes(whole))

    return work


def unknown_type(path: Path) -> None:
    whole = path.read_bytes()
    entry = whole.index(b"output_norm.weight") + len(b"output_norm.weight") + 4 + 8
    overwritten(entry, (999).to_bytes(4, "little"))(path)


def text(of: bytes) -> bytes:
    return struct.pack("<Q", len(of)) + of


def header(key: bytes, kind: int, value: bytes) -> bytes:
    """A file with one entry of metadata and no tensor."""
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text(key) + struct.pack("<I", kind) + value


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "not there": (Path.unlink, "is not there: give the path of a GGUF file"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "is not a file"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "another format": (lambda path: path.write_bytes(b"PK\3\4" * 99), "is not a GGUF file"),
    "of an old version": (overwritten(4, b"\1\0\0\0"), "is of GGUF version 1"),
    "of a later version": (overwritten(4, b"\11\0\0\0"), "is of GGUF version 9"),
    "big-endian": (overwritten(4, b"\0\0\0\3"), "is a big-endian GGUF file"),
    "cut in the first bytes": (lambda path: path.write_bytes(path.read_bytes()[:6]), "GGUF"),
    "cut in the header": (cut(0.1), "is cut off or damaged within its header"),
    "cut in the weights": (cut(0.9), "ends within its weights"),
    "with a length beyond all bounds": (overwritten(8, b"\xff" * 8), "is cut off or damaged within its header"),
    "with arrays in arrays without end": (
        lambda path: path.write_bytes(header(b"a", 9, struct.pack("<IQ", 9, 1) * 50_000)),
        "is cut off or damaged within its header",
    ),
    "with an alignment that is no number": (
        lambda path: path.write_bytes(header(b"general.alignment", 8, text(b"wide"))),
        "is cut off or damaged within its header",
    ),
    "with a number of parts that is none": (
        lambda path: path.write_bytes(header(b"split.count", 8, text(b"\x1b[31m" * 1000))),
        "is one of ?[31m",
    ),
    "with an unknown quantization": (unknown_type, "unknown quantization type 999"),
    "of another family": (lambda path: write(path, family="clip"), "architecture clip is not supported"),
    "without a vocabulary": (lambda path: write(path, vocabulary=False), "holds no vocabulary"),
    "one part of several": (
        lambda path: write(path, more=lambda writer: writer.add_uint16("split.count", 3)),
        "is one of 3 parts",
    ),
    "with scaled positions": (
        lambda path: write(path, more=lambda writer: writer.add_rope_scaling_factor(8.0)),
        "asks for scaled positions (llama.rope.scaling.factor=8.0)",
    ),
    "with Llama-3.1's positions": (
        lambda path: write(path, more=lambda writer: writer.add_tensor("rope_freqs.weight", torch.ones(4).numpy())),
        "asks for scaled positions (rope_freqs.weight)",
    ),
    "with a sliding window": (
        lambda path: write(path, more=lambda writer: writer.add_sliding_window(64)),
        "asks for sliding-window attention (llama.attention.sliding_window=64)",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_one_line(little: Path, cache: Path, kind: str) -> None:
    damage, words = BROKEN[kind]
    damage(little)
    with pytest.raises(ModelError) as told:
        spec_of(little).config()
    line = str(told.value)
    assert words in line and f"model.path={little} " in line and "\n" not in line and len(line) < 400
    assert not list(cache.glob("*/config.json"))


@pytest.mark.slow
def test_no_byte_of_a_header_that_is_another_is_a_traceback(little: Path) -> None:
    whole, draw, fine = little.read_bytes(), random.Random(0), 0
    end = whole.index(b"output_norm.weight") + 60
    for number in range(24):
        changed, path = bytearray(whole), little.with_name(f"changed{number}.gguf")
        changed[draw.randrange(4, end)] = draw.choice([0, 1, 128, 255])
        path.write_bytes(changed)
        try:
            spec = spec_of(path)
            load_model(spec, spec.config())
            spec.tokenizer()
            fine += 1
        except KvgaugeError as error:
            assert "\n" not in str(error) and len(str(error)) < 600
    assert fine < 24


def test_a_missing_tensor_is_one_line(tmp_path: Path, cache: Path) -> None:
    spec = spec_of(write(tmp_path / "short.gguf", leave_out="blk.1.ffn_up.weight"))
    with pytest.raises(ModelError, match=r"short.gguf has no weights for model.layers.1.mlp.up_proj.weight and 0 more"):
        load_model(spec, spec.config())
    assert not list(cache.glob("*/float32"))


def test_a_cache_that_cannot_be_written_is_one_line(
    little: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"cannot be kept in .*: make room, or set XDG_CACHE_HOME"):
        spec_of(little).config()


def test_a_preset_says_where_its_file_comes_from(kvgauge: Command, tmp_path: Path) -> None:
    done = kvgauge("model=smollm2_135m", f"results_dir={tmp_path}")
    assert done.code == 4
    assert done.err.strip() == (
        f"kvgauge: model.path={tmp_path}/cache/kvgauge/SmolLM2-135M-Instruct.Q4_1.gguf is not there: "
        "fetch it with make smollm2, or use model=tiny"
    )


def test_a_run_goes_from_the_file_to_its_table(little: Path, kvgauge: Command, tmp_path: Path) -> None:
    words = ["task=needle_chat", "method=[fullkv,snapkv]", "budget=64", "task.lengths=[420]", "task.depths=[50]"]
    done = kvgauge("model=hf", f"model.path={little}", *words, f"results_dir={tmp_path / 'results'}")
    assert done.code == 0, done.err
    assert "needle_chat on little" in done.out
