"""The grid: every (method, storage, budget) of a run, and the plan of what each keeps of a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, is_dataclass, replace
from fractions import Fraction
from functools import cached_property
from operator import index

from harness.compression.allocation import Allocation, Counts, Seen, Shape, Uniform
from harness.compression.budget import FULL, OWN, Budget
from harness.compression.eviction import Eviction, attended
from harness.compression.method import Method, Reranks, Scorer
from harness.compression.storage import EXACT, Storage
from harness.errors import BudgetError, ConfigError, KvgaugeError
from harness.results import Cell, by_head
from harness.text import check_name, plain


@dataclass(frozen=True)
class Variant:
    """One (method, storage, budget): a cell of the grid with its method, its storage and its parsed budget.

    Attributes:
        cell: the cell.
        method: the method.
        budget: the budget.
        drawn: number of answers that are drawn for each prompt; 0 for one greedy answer.
        storage: as what it stores the entries that it keeps.
    """

    cell: Cell
    method: Method
    budget: Budget
    drawn: int = 0
    storage: Storage = EXACT

    @property
    def rows(self) -> int:
        """Number of rows that it decodes for a prompt."""
        return max(1, self.drawn)

    def plan(self, shape: Shape) -> Plan:
        """What this variant keeps of a prompt.

        ``full`` and shares that come to the whole prompt keep it whole under every method, however short it is.

        Args:
            shape: the prompt and the model; its ``window`` and ``share`` are taken from the method and the budget.

        Raises:
            BudgetError: the budget leaves nothing to choose for this prompt.
            ConfigError: the allocation failed, or the numbers that it returned are wrong in count or range, or the
                model has no layer to compress.
        """
        compresses = self.method.scorer is not None or self.method.evictor is not None or self.storage.packs
        if compresses and not shape.layers:
            raise ConfigError(
                f"method={self.cell.label} has nothing to compress in this model, all of whose layers keep a window of "
                "tokens and no more: use method=fullkv, or a model with layers that attend to all earlier tokens"
            )
        plan = self._selected(shape)
        nothing_dropped = plan.scorer is None and plan.eviction is None
        return replace(plan, storage=EXACT if self.storage.merges and nothing_dropped else self.storage)

    def _selected(self, shape: Shape) -> Plan:
        tokens, budget, method = shape.tokens, self.budget.entries(shape.tokens), self.method
        whole = Plan((tokens,) * shape.layers, None)
        if method.uses_budget and self.budget.tokens is None and budget >= tokens:
            return whole
        try:
            method.check_budget(budget)
        except BudgetError as error:
            if self.budget.share is None:
                raise
            raise BudgetError(f"{self.budget.text} of a prompt of {tokens} tokens: {error}") from error
        scorer, allocation, evictor = method.scorer, method.allocation, method.evictor
        eviction = None if evictor is None else Eviction(evictor, (budget,) * shape.layers)
        if evictor is not None:
            # A cache in the order of scores can have this order from the prompt on, even if nothing is dropped of it.
            begins = evictor.carries or (evictor.reorders and tokens >= budget)
            whole = replace(whole, eviction=eviction, scorer=scorer if begins else None)
        if scorer is None:
            return whole
        if method.rerotates and allocation != Uniform():
            raise ConfigError(
                f"method={method.label} turns kept keys to new positions, for which all layers and heads keep equally "
                "many: name a method with the same budget everywhere"
            )
        if tokens <= scorer.window:
            return whole
        share = self.budget.share if self.budget.share is not None else Fraction(budget, tokens)
        shape = replace(shape, window=min(scorer.window, tokens), share=share)
        scorer = method.scorer_for(shape)
        if allocation.sees != "shape":
            waiting = Waiting(allocation, budget, shape)
            return Plan((min(budget, tokens),) * shape.layers, scorer, waiting, eviction=eviction)
        keep = counted(allocation, budget, shape, (), method.label)
        if all(count >= tokens for counts in keep for count in by_head(counts)):
            return whole
        return Plan(keep, scorer, rerotates=method.rerotates, eviction=eviction)


def counted(
    allocation: Allocation, budget: int, shape: Shape, seen: Sequence[Seen], label: str
) -> tuple[int | tuple[int, ...], ...]:
    """The numbers of entries that an allocation gives, checked.

    Args:
        allocation: the allocation.
        budget: see ``Allocation.counts``.
        shape: see ``Allocation.counts``.
        seen: see ``Allocation.counts``.
        label: the name of the method or the allocation, for errors.

    Returns:
        For each layer, one number if all of its heads keep equally many, else one for each head; at most the prompt's
        tokens.

    Raises:
        ConfigError: the allocation failed, or its numbers are wrong in count or range.
    """
    tokens, layers = shape.tokens, 1 if allocation.sees == "layer" else shape.layers
    try:
        given = allocation.counts(budget, shape, seen)
    except KvgaugeError:
        raise
    except Exception as error:  # a user's own class may raise anything
        raise ConfigError(
            f"method={label}: counts(budget={budget}, {tokens} tokens, {shape.layers} layers) failed with "
            f"{type(error).__name__} ({plain(str(error))[:200]}): mend it"
        ) from error
    try:
        keep = [_whole(counts, tokens) for counts in given]
    except TypeError as error:
        raise ConfigError(
            f"method={label}: counts gave {plain(repr(given))[:100]}: give a list of {layers}, each a whole number or "
            f"{shape.cache_heads} whole numbers, one per head of the cache"
        ) from error
    if len(keep) != layers:
        raise ConfigError(
            f"method={label} gives {len(keep)} numbers of entries for {layers} layers: give one per layer"
        )
    least = max(1, shape.window)
    for counts in keep:
        if isinstance(counts, tuple) and len(counts) != shape.cache_heads:
            raise ConfigError(
                f"method={label} gives {len(counts)} numbers of entries for {shape.cache_heads} heads of the cache: "
                "give one per head"
            )
        if wrong := [count for count in by_head(counts) if count < least]:
            what = "its window" if least == shape.window else "no head can be empty"
            raise ConfigError(
                f"method={label} keeps {wrong[0]} entries in a layer: keep {least} ({what}) to {tokens} (the prompt)"
            )
    return tuple(keep)


def _whole(counts: Counts, tokens: int) -> int | tuple[int, ...]:
    """Counts as whole numbers of at most ``tokens``; one number if they are equal."""
    if isinstance(counts, Sequence):
        heads = tuple(min(index(count), tokens) for count in counts)
        return heads[0] if len(set(heads)) == 1 else heads
    return min(index(counts), tokens)


def make_grid(
    methods: Sequence[Method], budgets: Sequence[Budget], drawn: int = 0, storages: Sequence[Storage] = (EXACT,)
) -> tuple[Variant, ...]:
    """Every method in every storage at every budget, under the labels ``snapkv`` and ``snapkv+kivi2``.

    A method that does not use budgets comes once in each storage, as ``full`` or, if it drops entries, ``own``.
    Where answers are drawn, each method that keeps everything comes once more with a greedy one, the second reference.

    Args:
        methods: the methods.
        budgets: the budgets.
        drawn: number of answers that are drawn for each prompt; 0 for one greedy answer.
        storages: as what entries are stored.

    Raises:
        BudgetError: a method cannot obey an absolute budget for any prompt.
        ConfigError: there is no method or storage, two share a label, or a label cannot name a folder.
    """
    if not methods:
        raise ConfigError("method=[] names no method: use method=published or, for example, method=[snapkv,pyramidkv]")
    if not storages:
        raise ConfigError("storage=[] names no storage: use storage=exact or, for example, storage=[exact,kivi2]")
    for storage in storages:
        check_name(storage.label, "storage label")
    pairs = [(method, storage, _label(method, storage)) for method in methods for storage in storages]
    labels = [label for *_, label in pairs]
    if doubled := {label for label in labels if labels.count(label) > 1}:
        raise ConfigError(
            f"label={doubled.pop()} stands for two methods or storages: give each its own label in the results"
        )
    for method, storage, label in pairs:
        if not storage.exact and method.evictor is not None and not storage.by_entry:
            raise ConfigError(
                f"{label} would drop entries that are packed or merged together while decoding: use storage=exact for "
                f"method={method.label}, or one that packs each entry by itself, as int8, int4 or fp8"
            )
    variants = [
        Variant(Cell(label, budget.text), method, budget, drawn, storage)
        for method, storage, label in pairs
        for budget in (budgets if method.uses_budget else (FULL if method.scorer is None else OWN,))
    ]
    for variant in variants:
        if variant.budget.tokens is not None and variant.method.uses_budget:
            variant.method.check_budget(variant.budget.tokens)
    if drawn:
        variants = [each for variant in variants for each in (variant, *_greedy(variant, labels))]
    return tuple(variants)


def _label(method: Method, storage: Storage) -> str:
    """The name in tables of a method in a storage."""
    label = check_name(method.label, "method label")
    return check_name(f"{label}+{storage.label}", "label") if not storage.exact else label


def _greedy(variant: Variant, labels: Sequence[str]) -> Iterator[Variant]:
    """The greedy reference of a variant that keeps everything, under a label of its own; of others there is none."""
    method, label = variant.method, f"{variant.cell.label}_greedy"
    if method.scorer is None and is_dataclass(method) and variant.storage.exact:
        if label in labels:
            raise ConfigError(f"label={label} is that of the greedy reference: give your method another one")
        yield Variant(Cell(label, variant.cell.budget), replace(method, label=label), variant.budget)


@dataclass(frozen=True)
class Waiting:
    """What is needed to count entries once layers have been seen; see ``Allocation.counts``."""

    allocation: Allocation
    budget: int
    shape: Shape


@dataclass(frozen=True)
class Plan:
    """What a variant keeps of one prompt. Equal plans keep the same entries.

    Attributes:
        keep: number of entries for each layer, window included, at most the prompt's tokens: one number for all heads
            of the cache or one for each. If the plan waits, this is the budget.
        scorer: which candidates survive; None if every layer keeps everything.
        waiting: how entries are counted once layers have been seen; None if ``keep`` is known.
        rerotates: see ``Method.rerotates``.
        eviction: what is dropped while decoding; None if nothing is.
        storage: as what the entries are stored.
    """

    keep: tuple[int | tuple[int, ...], ...]
    scorer: Scorer | None
    waiting: Waiting | None = None
    rerotates: bool = False
    eviction: Eviction | None = None
    storage: Storage = EXACT

    @cached_property
    def reranking(self) -> Reranks | None:
        """The scorer, if its scores depend on how many entries are kept; None otherwise."""
        return self.scorer if isinstance(self.scorer, Reranks) else None

    @property
    def changes(self) -> bool:
        """Whether kept entries are others than the model's own: turned, packed, merged, or replaced while decoding."""
        return self.rerotates or not self.storage.exact or self.eviction is not None

    @property
    def positions(self) -> int | None:
        """Number of positions that the kept entries take if they are turned to new ones; None if they are not."""
        count = self.keep[0] if self.rerotates else None
        return count if isinstance(count, int) else None

    def total(self, shape: Shape) -> int:
        """The most entries that all layers and heads keep together.

        A layer that keeps everything has the kv heads, unless heads of the cache go on to drop entries of their own.
        """
        if self.waiting is not None:
            return self.waiting.allocation.total(self.waiting.budget, self.waiting.shape)
        of_whole = shape.kv_heads if self.eviction is None else shape.cache_heads
        return sum(
            sum(counts)
            if not isinstance(counts, int)
            else counts * (of_whole if counts == shape.tokens else shape.cache_heads)
            for counts in self.keep
        )

    def most(self, shape: Shape, new_tokens: int) -> int:
        """The most entries that all layers and heads hold together while so many new tokens come."""
        if self.eviction is None:
            heads = shape.kv_heads if self.scorer is None else shape.cache_heads
            return self.total(shape) + new_tokens * shape.layers * heads
        most = 0
        for kept, budget in zip(self.keep, self.eviction.budgets, strict=True):
            assert isinstance(kept, int)
            before, _ = attended(self.eviction.evictor, budget, kept, shape.tokens, 0, new_tokens)
            most += max(before, default=kept) * shape.cache_heads
        return most
