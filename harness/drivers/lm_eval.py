"""kvgauge as a model of lm-evaluation-harness, which asks it for texts and for scores of continuations."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.registry import model_registry
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from tqdm import tqdm

from harness.drivers.asked import Asked, is_setting, opened, words_of
from harness.engine.rows import Limits
from harness.engine.sampling import GREEDY, Sampling
from harness.engine.scoring import Tokens
from harness.errors import ConfigError, EngineError
from harness.run.prepare import method_settings, storage_settings

_OF_TEXTS = (
    "max_length",
    "truncation",
    "add_bos_token",
    "prefix_token_id",
    "chat_template_args",
    "enable_thinking",
    "think_end_token",
)
"""Arguments of lm-eval's ``hf`` model that mean the same here: how texts become tokens, and tokens texts."""
_UNUSED = ("batch_size", "max_batch_size")
_SEED = 1234
"""Of drawn answers: lm-eval's own seed of torch, which it does not tell its models."""
_GENERATION = ("until", "max_gen_toks", "do_sample", "temperature", "top_p")

Request = tuple[tuple[str, str], list[int], list[int]]


class KVGauge(HFLM):  # type: ignore[misc]
    """One cell of a grid as a model of lm-eval.

    Texts become tokens, and tokens texts, as in lm-eval's ``hf`` model. Whatever one cell is asked is computed for all
    cells of the grid, from one prefill of each context; the other cells then find their answers there.
    """

    def __init__(self, cell: str | None = None, **arguments: Any) -> None:
        """Load the model, unless the newest grid is this one.

        Args:
            cell: the cell, ``snapkv-128``; None if the grid has only one.
            **arguments: ``pretrained``, ``method``, ``budget`` and other settings of kvgauge's by their names on its
                command line (``method.snapkv.window``, ``engine.width``); ``dtype``, ``revision`` and ``device`` of the
                model; and of the ``hf`` model's those that say how texts become tokens.

        Raises:
            KvgaugeError: an argument, or the model, cannot be used.
        """
        self._asked = open_grid(arguments)
        cells = {variant.cell.name: variant for variant in self._asked.grid.variants}
        if cell is None and len(cells) > 1:
            raise ConfigError(
                f"the grid has {len(cells)} cells, {', '.join(cells)}: name one, cell={next(iter(cells))}"
            )
        if cell is not None and cell not in cells:
            raise ConfigError(f"cell={cell} is not in the grid: use {', '.join(cells)}")
        self._variant = cells[cell] if cell is not None else next(iter(cells.values()))
        self._cell = self._variant.cell
        checkpoint = self._asked.checkpoint
        texts = {name: value for name, value in arguments.items() if name in _OF_TEXTS}
        logging.getLogger("lm_eval.models.huggingface").addFilter(_is_of_use)
        super().__init__(self._asked.grid.engine.model, tokenizer=checkpoint.tokenizer, batch_size=1, **texts)
        self.revision = checkpoint.spec.revision

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Refused, because such a text has no context.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(refusal(requests[0].task_name or "a task"))

    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """Score continuations; a text that is longer than the model's limit loses its beginning, as with ``hf``."""
        pairs = []
        for _, context, continuation in requests:
            if len(continuation) > self.max_length:
                raise ConfigError(
                    f"a continuation has {len(continuation)} tokens, and the model's limit is {self.max_length}: leave "
                    "the task out"
                )
            whole = (context + continuation)[-(self.max_length + 1) :]
            pairs.append((tuple(whole[: -len(continuation)]), tuple(continuation)))
        keys = [_key("score", *pair) for pair in pairs]
        known = self._asked.scores
        contexts: dict[Tokens, list[Tokens]] = {}
        for key, (before, after) in zip(keys, pairs, strict=True):
            if key not in known and after not in contexts.setdefault(before, []):
                contexts[before].append(after)
        contexts = {before: afters for before, afters in contexts.items() if afters}
        with tqdm(total=len(contexts), desc="contexts", disable=disable_tqdm or not contexts) as bar:
            for before, scores in self._asked.grid.score(contexts):
                for place, after in enumerate(contexts[before]):
                    known[_key("score", before, after)] = {cell: (each[place],) for cell, each in scores.items()}
                bar.update()
        answers = []
        for (strings, _, _), key in zip(requests, keys, strict=True):
            (scored,) = known[key][self._cell]
            self._refuse(scored.error)
            answers.append((scored.log_probability, scored.is_greedy))
            self.cache_hook.add_partial("loglikelihood", strings, answers[-1])
        return answers

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Generate from the compressed cache until a text, an end token or the limit of new tokens."""
        asked: dict[str, dict[Tokens, list[int]]] = {}
        for place, request in enumerate(requests):
            context, settings = request.args
            wanted = self._wanted(settings)
            ids, _ = self.tok_batch_encode(
                [context], left_truncate_len=self.max_length - wanted["max_gen_toks"], truncation=self.truncation
            )
            asked.setdefault(json.dumps(wanted), {}).setdefault(tuple(ids[0].tolist()), []).append(place)
        texts = [""] * len(requests)
        for spelt, prompts in asked.items():
            wanted = json.loads(spelt)
            limits, sampling = self._limits(wanted), GREEDY
            if wanted["temperature"]:
                repeats = max(map(len, prompts.values()))
                sampling = Sampling(wanted["temperature"], wanted["top_p"], repeats, _SEED)
            kind = f"{spelt} {sampling.drawn}"
            self._generate(kind, list(prompts), limits, sampling, disable_tqdm)
            for ids, places in prompts.items():
                answers = self._asked.answers[_key(kind, ids)][self._cell]
                for number, place in enumerate(places):
                    answer = answers[number if sampling.drawn else 0]
                    self._refuse(answer.error)
                    texts[place] = self._text(answer.tokens, wanted["until"])
                    self.cache_hook.add_partial("generate_until", requests[place].args, texts[place])
        return texts

    def get_model_info(self) -> dict[str, Any]:
        """What results say of the model: the cell, and what was kept of the contexts that it answered for."""
        grid, checkpoint, model = self._asked.grid, self._asked.checkpoint, self._asked.grid.engine.model
        tally = grid.tallies[self._cell]
        return {
            "model_num_parameters": model.num_parameters(),
            "model_dtype": str(model.dtype),
            "model_revision": self.revision,
            "model_sha": checkpoint.identity.get("commit", ""),
            "kvgauge": {
                "model": dict(checkpoint.identity),
                "label": self._cell.label,
                "budget": self._cell.budget,
                "storage": self._variant.storage.label,
                "method": method_settings(self._variant.method),
                **storage_settings(self._variant.storage),
                "selection": asdict(grid.selection),
                "kept": asdict(tally),
                "provenance": dict(checkpoint.provenance),
            },
        }

    def _generate(
        self, kind: str, prompts: Sequence[Tokens], limits: Limits, sampling: Sampling, disable_tqdm: bool
    ) -> None:
        """Compute the answers to prompts that are not known yet."""
        known = self._asked.answers
        missing = [ids for ids in prompts if _key(kind, ids) not in known]
        with tqdm(total=len(missing), desc="prompts", disable=disable_tqdm or not missing) as bar:
            for place, answers in self._asked.grid.generate(missing, limits, sampling):
                known[_key(kind, missing[place])] = answers
                bar.update()

    def _wanted(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """A request's settings of generation, all of them and as plain JSON values."""
        wanted = dict(normalize_gen_kwargs(dict(settings), self.max_gen_toks))
        if unknown := sorted(set(wanted) - set(_GENERATION)):
            raise ConfigError(
                f"{unknown[0]}={wanted[unknown[0]]} among generation_kwargs cannot be done here: kvgauge knows "
                f"{', '.join(_GENERATION)}"
            )
        if not 0 < wanted["max_gen_toks"] < self.max_length:
            raise ConfigError(
                f"max_gen_toks={wanted['max_gen_toks']} leaves no room for a prompt: the model's limit is "
                f"{self.max_length} tokens"
            )
        drawn = wanted.pop("do_sample")
        wanted["temperature"] = float(wanted.get("temperature", 1.0)) if drawn else 0.0
        wanted["top_p"] = float(wanted.get("top_p", 1.0))
        end = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        wanted["until"] = [text for text in handle_stop_sequences(wanted["until"], eos=end) if text]
        return wanted

    def _limits(self, wanted: Mapping[str, Any]) -> Limits:
        """When an answer ends: with an end token of the model, a text, or the largest number of new tokens."""
        ends = self._asked.grid.engine.model.generation_config.eos_token_id
        stop_ids = {self.eot_token_id, *([ends] if isinstance(ends, int) else ends or ())}
        until = wanted["until"]

        # A text of n bytes ends within n + 1 tokens, as a token has one or more.
        most = max((len(text.encode()) for text in until), default=0) + 1

        def is_said(tokens: Sequence[int]) -> bool:
            newest = self.tok_decode(list(tokens[-most:]), skip_special_tokens=False)
            return any(text in newest for text in until)

        return Limits(frozenset(stop_ids), wanted["max_gen_toks"], is_said=is_said if until else None)

    def _text(self, tokens: Sequence[int], until: Sequence[str]) -> str:
        """The text of an answer, cut as the ``hf`` model cuts it: before the first end, and behind any thoughts."""
        end = self.think_end_token
        if isinstance(end, int):
            if end in tokens:
                tokens = tokens[len(tokens) - tuple(reversed(tokens)).index(end) :]
            text = self.tok_decode(list(tokens))
            text = text.lstrip() if end in tokens else text
        else:
            text = self.tok_decode(list(tokens))
        return str(postprocess_generated_text(text, list(until), end if isinstance(end, str) else None))

    def _refuse(self, error: str | None) -> None:
        if error is not None:
            raise EngineError(f"{self._cell.name}: {error}")


def refusal(task: str) -> str:
    """Why a task of whole texts is refused."""
    return (
        f"{task} asks for the perplexity of whole texts (loglikelihood_rolling), which have no context that could be "
        "compressed, so that every method would get the full cache's numbers: use tasks of generate_until, "
        "loglikelihood or multiple_choice"
    )


def open_grid(arguments: Mapping[str, Any]) -> Asked:
    """The grid that arguments of the model ask for; its model is loaded unless it is the newest one.

    Args:
        arguments: those of ``KVGauge``, and those that lm-eval gives each model.

    Raises:
        KvgaugeError: one of them cannot be used.
    """
    for name, value in arguments.items():
        if name == "trust_remote_code" and value:
            raise ConfigError("trust_remote_code=True: no code of a checkpoint is run, so leave it out")
        if not is_setting(name) and name not in (*_OF_TEXTS, *_UNUSED, "trust_remote_code", "cell"):
            raise ConfigError(
                f"{name}={value} is no argument of the model kvgauge: use pretrained, method, budget, other settings "
                f"of kvgauge's such as engine.width, or {', '.join(_OF_TEXTS)}"
            )
    return opened(words_of({name: value for name, value in arguments.items() if is_setting(name)}))


def _key(kind: str, *ids: Iterable[int]) -> str:
    """What an answer is known by: a hash, because contexts are long."""
    return hashlib.sha256(json.dumps([kind, *map(list, ids)]).encode()).hexdigest()


def _is_of_use(record: logging.LogRecord) -> bool:
    """False for what ``hf`` says of models that it has not loaded itself."""
    return not ("`pretrained` model kwarg is not" in record.msg or "already-initialized model" in record.msg)


model_registry.register("kvgauge", target=KVGauge)
