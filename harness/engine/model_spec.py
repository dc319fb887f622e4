"""The specification of a model: its path, dtype and device, and the reading of its configuration and tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import torch
from msgspec import Meta
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PretrainedConfig
from transformers.utils.peft_utils import find_adapter_config_file

from harness.compression.allocation import Shape
from harness.compression.selection import Selection
from harness.engine import tensor_parallel
from harness.engine.attention import refuse_config, refuse_uneven
from harness.engine.gguf import file_sha256, is_gguf, model_folder, weights_folder
from harness.engine.hub import is_reachable
from harness.engine.layer_forms import layer_windows
from harness.engine.model_files import check_config, check_end_ids, reading
from harness.engine.quantized import check_quantization, is_packed, quantization_of
from harness.engine.weights_check import refuse_adapter, refuse_outside
from harness.engine.weights_hash import folder_sha256
from harness.errors import ConfigError, ModelError
from harness.text import check_name
from harness.values import Refusal, check

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Dtype = Literal["float32", "bfloat16", "float16"]
_DTYPES: Mapping[str, torch.dtype] = {name: getattr(torch, name) for name in get_args(Dtype)}


@dataclass(frozen=True)
class ModelSpec:
    """A model that can be loaded; its fields are the model's YAML.

    Attributes:
        path: a local folder, a GGUF file, or a hub id.
        name: the name in tables and folders; null takes the last part of ``path``.
        revision: a hub commit, branch or tag; null for a local folder or the default branch.
        dtype: ``float32``, ``bfloat16``, ``float16``, or ``auto`` for what the checkpoint says.
        device: ``auto`` (CUDA if there is a card), ``cpu``, ``cuda``, ``cuda:1``.
        device_map: null, or ``auto`` to spread the model over all cards (needs accelerate).
        tp_plan: null, or ``auto`` to share the model's heads among the processes of torchrun (needs a tensor-parallel
            plan in transformers for the family).
        note: what a reader of the numbers must know.
        max_prompt_tokens: a task's limit on prompts of this model: one number, or one per protocol of the task. This
            and the next two are not used here: a task's YAML reads them, as ``${model.max_prompt_tokens}``.
        chat: whether prompts go into the chat template; null leaves it to the task.
        chat_arguments: arguments of the chat template.
        remedy: what to do if the GGUF file is not there, for the error; "" for the common advice.

    Raises:
        ConfigError: a setting that cannot be used.
    """

    path: Annotated[str, Meta(min_length=1), Refusal("names no model", "give a local folder, a GGUF file or a hub id")]
    name: str | None = None
    revision: Annotated[
        Annotated[str, Meta(pattern=r"^(?!([0-9.]+|inf)\Z)")] | None,
        Refusal("looks like a commit read as a number", "quote it, model.revision='\"…\"'"),
    ] = None
    dtype: Dtype | Literal["auto"] = "auto"
    device: str = "auto"
    device_map: Literal["auto"] | None = None
    tp_plan: Literal["auto"] | None = None
    note: str = ""
    max_prompt_tokens: int | Mapping[str, int] | None = None
    chat: bool | None = None
    chat_arguments: Mapping[str, Any] = field(default_factory=dict)
    remedy: str = ""

    def __post_init__(self) -> None:
        check(self, "model")
        if self.tp_plan == "auto" and self.device_map is not None:
            raise ConfigError(
                "model.device_map=auto and model.tp_plan=auto both spread the model over cards: "
                "use null for one of them"
            )
        if self.tp_plan == "auto" and self.device != "auto":
            raise ConfigError(
                f"model.device={self.device} is one device, and model.tp_plan=auto has one per process: "
                "use model.device=auto"
            )
        check_name(self.label, "model.name")

    @property
    def label(self) -> str:
        """The name in tables and folders."""
        if self.name is not None:
            return self.name
        path = Path(self.path)
        if is_gguf(self.path):
            return path.stem
        # In the hub's cache, models--<organisation>--<name>/snapshots/<commit>.
        if path.parent.name == "snapshots" and (repository := path.parent.parent.name).startswith("models--"):
            return repository.rpartition("--")[2]
        return path.name

    @property
    def is_local(self) -> bool:
        """Whether ``path`` is a folder or a GGUF file on this machine."""
        return is_gguf(self.path) or Path(self.path).is_dir()

    @property
    def files(self) -> str:
        """What transformers reads configuration and tokenizer from: ``path``, or what a GGUF file was read into.

        Raises:
            ModelError: the GGUF file is missing, broken, or not supported.
        """
        return str(model_folder(self.path, self.remedy)) if is_gguf(self.path) else self.path

    def weights(self, config: PretrainedConfig) -> str:
        """What transformers reads the weights from, as ``files``.

        Raises:
            ModelError: as ``files``, or weights are missing in the GGUF file.
        """
        return str(weights_folder(self.path, self.torch_dtype(config))) if is_gguf(self.path) else self.path

    def arguments(self) -> dict[str, Any]:
        """Arguments of every loading call of transformers: the revision, and no code from the checkpoint.

        Where the hub does not answer, its cache is read alone.
        """
        return {"trust_remote_code": False, **self._pinned()}

    def _pinned(self) -> dict[str, Any]:
        local_only = self.is_local or not is_reachable(self.path, self.revision)
        return {"local_files_only": local_only, "revision": self.revision}

    def config(self) -> PretrainedConfig:
        """Read the model's configuration.

        Raises:
            ConfigError: its kv heads cannot be divided among the processes of this run.
            ModelError: it cannot be found or read, or its attention cannot be reproduced exactly.
        """
        if Path(self.path).is_file() and not is_gguf(self.path):
            raise ModelError(
                f"model.path={self.path} is a file: give a GGUF file, or the folder of a saved transformers model, "
                "which has config.json, *.safetensors and the tokenizer's files"
            )
        files = self.files
        if not self.is_local and (self.path.startswith((".", "/", "~")) or self.path.count("/") > 1):
            raise ModelError(f"model.path={self.path} is not a folder: give an existing folder or a hub id")
        remedy = "mend or fetch its config.json" if self.is_local else "check the id and model.revision"
        if self.is_local:
            refuse_adapter(self.path, find_adapter_config_file(files))
            refuse_outside(self.path, Path(files))
        if self.is_local and not (Path(files) / "config.json").is_file():
            raise ModelError(
                f"model.path={self.path} has no config.json: give the folder of a saved transformers model"
            )
        with reading(self.path, "cannot be read", remedy, hub=not self.is_local):
            try:
                config: PretrainedConfig = AutoConfig.from_pretrained(files, **self.arguments())
            except OSError as error:
                if _is_absent(error) or self._pinned()["local_files_only"]:
                    refuse_adapter(self.path, find_adapter_config_file(files, **self._pinned()))
                raise
            adapter = None if self.is_local else find_adapter_config_file(files, **self._pinned())
        refuse_adapter(self.path, adapter)
        config = text_model(config)
        refuse_uneven(config, self.label)
        check_config(self.path, config)
        check_end_ids(self.path, "config.json", config.eos_token_id)
        refuse_config(config, self.label)
        check_quantization(self.path, config, choose_device(self.device))
        if tensor_parallel.count() > 1:
            _refuse_shares(config, self.label)
        return config

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Read the model's tokenizer.

        Raises:
            ModelError: there is none that can be used.
        """
        remedy = "add or mend its tokenizer.json, or use task=tokens"
        with reading(self.path, "has no usable tokenizer", remedy, hub=not self.is_local):
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(self.files, **self.arguments())
            # Without tokenizer files, transformers 5.5 returns a tokenizer with an empty vocabulary.
            words = set(tokenizer.encode("Some words, to be told apart.", add_special_tokens=False))
            tokenizer.decode(tokenizer.encode("Some words."), skip_special_tokens=True)
        if len(words) < 2:
            raise ModelError(f"model.path={self.path} has no usable tokenizer (it knows no words): {remedy}")
        check_end_ids(self.path, "tokenizer_config.json", tokenizer.eos_token_id)
        return tokenizer

    def generation(self, config: PretrainedConfig) -> GenerationConfig:
        """Read the model's generation config, or make it from its configuration as transformers does.

        Raises:
            ModelError: there is a generation config, but it cannot be read.
        """
        pinned: dict[str, Any] = {"local_files_only": self.arguments()["local_files_only"]}
        pinned |= {"revision": self.revision} if self.revision is not None else {}
        remedy = "it names end tokens; mend or fetch it"
        with reading(self.path, "has a generation_config.json that cannot be read", remedy, hub=False):
            try:
                read = GenerationConfig.from_pretrained(self.files, **pinned)
            except OSError as error:
                missing = (
                    not (Path(self.files) / "generation_config.json").exists() if self.is_local else _is_absent(error)
                )
                if not missing:
                    raise
                # The config.json of earlier models has such fields, which a configuration that was read has lost.
                pinned |= {"config_file_name": "config.json", "_from_model_config": True}
                try:
                    read = GenerationConfig.from_pretrained(self.files, **pinned)
                except OSError:
                    read = GenerationConfig.from_model_config(config)
        check_end_ids(self.path, "generation_config.json", read.eos_token_id)
        return read

    def torch_dtype(self, config: PretrainedConfig) -> torch.dtype:
        """The dtype of the loaded weights and of the cache."""
        if self.dtype != "auto":
            return _DTYPES[self.dtype]
        return _DTYPES.get(str(getattr(config, "dtype", None)).removeprefix("torch."), torch.float32)

    def in_blocks(self, config: PretrainedConfig) -> bool:
        """Whether its linear layers are laid out in blocks on a CPU: float32 weights that transformers does not place.

        Args:
            config: the model's configuration.
        """
        placed = self.device_map is not None or self.tp_plan is not None or is_packed(config)
        return not placed and self.torch_dtype(config) == torch.float32

    def identity(self, config: PretrainedConfig) -> dict[str, Any]:
        """What results depend on, for a cell's fingerprint: the commit or the hash of the weights, and the dtype.

        Of quantized weights, also how they are quantized.

        Raises:
            ModelError: the weights cannot be read.
        """
        more: dict[str, Any] = {"dtype": str(self.torch_dtype(config)).removeprefix("torch.")}
        if (quantization := quantization_of(config)) is not None:
            more["quantization"] = quantization
        if is_gguf(self.path):
            return {"weights": file_sha256(self.path), **more}
        if self.is_local:
            with reading(self.path, "has files that cannot be read", "mend or fetch its weights again", hub=False):
                return {"weights": folder_sha256(Path(self.path)), **more}
        commit = getattr(config, "_commit_hash", None)
        return {"path": self.path, "commit": commit or self.revision or "unknown", **more}


def text_model(config: PretrainedConfig) -> PretrainedConfig:
    """The configuration of the text model in one of a model that reads images or sound, too; any other as it is."""
    inner = getattr(config, "text_config", None)
    if not isinstance(inner, PretrainedConfig) or config.is_encoder_decoder:
        return config
    inner.dtype = inner.dtype or config.dtype
    inner.tie_word_embeddings = config.tie_word_embeddings
    inner.eos_token_id = inner.eos_token_id if inner.eos_token_id is not None else config.eos_token_id
    inner._commit_hash = getattr(config, "_commit_hash", None)
    return inner


def all_end_ids(
    generation_ids: int | Sequence[int] | None, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase | None
) -> frozenset[int]:
    """The end tokens of a model, without those that it has no embedding for.

    Args:
        generation_ids: end tokens of its generation config.
        config: its configuration, which may name more.
        tokenizer: its tokenizer, which may name more, such as the end of a turn in a chat.
    """
    sources: list[Any] = [generation_ids, config.eos_token_id]
    if tokenizer is not None:
        vocabulary = tokenizer.get_vocab()
        sources += [tokenizer.eos_token_id, *(vocabulary.get(token) for token in ("<|eot_id|>", "<|end_of_text|>"))]
    tokens: set[int] = set()
    for source in sources:
        tokens.update([source] if isinstance(source, int) else source or ())
    return frozenset(token for token in tokens if 0 <= token < config.vocab_size)


def entry_bytes(config: PretrainedConfig, dtype: torch.dtype) -> tuple[int, int, int]:
    """(bytes of one KV entry of one head and layer, number of query heads, number of kv heads).

    An entry is a key and a value.
    """
    return 2 * head_dim(config) * dtype.itemsize, config.num_attention_heads, kv_heads(config)


def head_dim(config: PretrainedConfig) -> int:
    """Numbers of a key of one head."""
    return getattr(config, "head_dim", None) or int(config.hidden_size // config.num_attention_heads)


def kv_heads(config: PretrainedConfig) -> int:
    """Number of kv heads."""
    return getattr(config, "num_key_value_heads", None) or int(config.num_attention_heads)


def _is_absent(error: OSError) -> bool:
    """Whether transformers says that a repository has no such file."""
    return "does not appear to have" in str(error)


def _refuse_shares(config: PretrainedConfig, name: str) -> None:
    """Refuse a model whose heads cannot be divided among the processes."""
    if not getattr(config, "base_model_tp_plan", None):
        raise ModelError(
            f"model={name} ({config.model_type}) has no tensor-parallel plan in transformers: use model.device_map=auto"
        )
    if kv_heads(config) % tensor_parallel.count():
        raise ConfigError(
            f"model={name} has {kv_heads(config)} kv heads, which {tensor_parallel.count()} processes cannot share "
            "evenly: use a --nproc-per-node that divides them"
        )


def choose_device(device: str) -> torch.device:
    """The device that a value of ``model.device`` means on this machine.

    Raises:
        ConfigError: there is no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"model.device={device} is unknown: use auto, cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"model.device={device} is not there ({torch.cuda.device_count()} CUDA devices): "
            "use model.device=auto or cpu"
        )
    return chosen


def shape_of(config: PretrainedConfig, tokens: int, selection: Selection) -> Shape:
    """The shape of a prompt on a model, by which its compression is planned; its layers are those without windows."""
    _, heads, kv = entry_bytes(config, torch.float32)
    layers = layer_windows(config).count(None)
    return Shape(tokens, layers, heads, kv, cache_heads=heads if selection.granularity == "query_head" else kv)
