"""Checkpoints with quantized weights: known kinds are read where they can be, and all others are one line."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from harness.engine.loading import load_model
from harness.engine.model_spec import ModelSpec
from harness.engine.quantized import check_quantization, is_packed
from harness.errors import ConfigError, ModelError
from tests.conftest import ROOT, Command
from tests.harness.tiny import Cell, decode_together, methods

KINDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "bitsandbytes": ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "bitsandbytes", "bitsandbytes"),
    "compressed-tensors": ({"format": "pack-quantized"}, "compressed_tensors", "compressed-tensors"),
    "gptq": ({"bits": 4, "group_size": 128}, "optimum", "optimum"),
    "awq": ({"bits": 4, "group_size": 128}, "gptqmodel", "gptqmodel"),
}


def quantized(folder: Path, **quantization: Any) -> Path:
    """The embedded model's folder, whose configuration says that its weights are quantized."""
    shutil.copytree(ROOT / "models/tiny", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_cpu_each_kind_is_a_clear_line_before_any_weight_is_read(
    kind: str, kvgauge: Command, tmp_path: Path
) -> None:
    folder = quantized(tmp_path / "model", quant_method=kind, **KINDS[kind][0])
    (folder / "model.safetensors").unlink()
    refused = kvgauge("model=hf", f"model.path={folder}", "model.device=cpu", "dry_run=true")
    assert refused.code == 2 and refused.err.count("\n") == 1
    assert f"quantized by {kind}, which are read on a CUDA device alone, and model.device is cpu: use" in refused.err


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_card_a_missing_package_is_named_with_the_command_that_installs_it(kind: str, tmp_path: Path) -> None:
    settings, module, package = KINDS[kind]
    folder = quantized(tmp_path / "model", quant_method=kind, **settings)
    config = AutoConfig.from_pretrained(folder)
    assert is_packed(config)
    if find_spec(module) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(ModelError, match=rf"need the package {package}: pip install {package}") as told:
        check_quantization(str(folder), config, torch.device("cuda"))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("kind", ["hqq", "nope", None, "x" * 10_000, "\x1b[31m"])
def test_a_kind_that_is_not_known_is_refused_by_name_on_any_device(kind: object, tmp_path: Path) -> None:
    folder = quantized(tmp_path / "model", quant_method=kind)
    config = AutoConfig.from_pretrained(folder)
    for device in ("cpu", "cuda"):
        with pytest.raises(ModelError, match="none of the kinds known here: use one of bitsandbytes") as told:
            check_quantization("model", config, torch.device(device))
        assert len(str(told.value)) < 400 and "\x1b" not in str(told.value)


def test_how_weights_are_quantized_is_in_what_a_manifest_knows_a_model_by(tmp_path: Path) -> None:
    settings, _, _ = KINDS["bitsandbytes"]
    folder = quantized(tmp_path / "model", quant_method="bitsandbytes", **settings)
    spec, config = ModelSpec(str(folder)), AutoConfig.from_pretrained(folder)
    assert spec.identity(config)["quantization"] == {"quant_method": "bitsandbytes", **settings}
    plain = ModelSpec(str(ROOT / "models/tiny"))
    assert set(plain.identity(plain.config())) == {"weights", "dtype"}
    with pytest.raises(ConfigError, match="quantized by bitsandbytes"):
        ModelSpec(str(folder), device="cpu").config()


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("bits", [4, 8])
def test_the_full_cache_equals_generate_of_transformers_with_quantized_weights(bits: int, tmp_path: Path) -> None:
    """On a CPU, where bitsandbytes computes too; the command asks for a card."""
    from transformers import BitsAndBytesConfig

    kind = BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8, bnb_4bit_compute_dtype=torch.float32)
    options: dict[str, Any] = {"dtype": torch.float32, "device_map": {"": "cpu"}}
    made = AutoModelForCausalLM.from_pretrained(ROOT / "models/tiny", quantization_config=kind, **options)
    made.save_pretrained(tmp_path)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path, **options)
    spec = ModelSpec(str(tmp_path), dtype="float32", device="cpu")
    ours = load_model(spec, AutoConfig.from_pretrained(tmp_path))
    assert "bitsandbytes" in type(ours.model.layers[0].self_attn.q_proj).__module__
    prompt = tuple(range(3, 60))
    (found,), _ = decode_together(ours, [Cell(prompt, methods()["fullkv"], len(prompt))], max_new_tokens=12)
    ids = torch.tensor([prompt])
    end: dict[str, Any] = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    whole = stock.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, **end)
    assert list(found.tokens) == whole[0, len(prompt) :].tolist()
