"""The methods and storages of a configuration, where a knob with several values makes several of them.

``method.snapkv.window=[8,32]`` makes two, with the labels ``snapkv_w8`` and ``snapkv_w32``. A knob that is a list by
its type has one value, which is the list.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, Union, cast, get_args, get_origin

from harness.config.build import build, find_class, method_node, split_scorer, wrapped_settings
from harness.errors import ConfigError
from harness.text import check_name
from harness.values import field_types

if TYPE_CHECKING:
    from harness.compression.method import Method
    from harness.compression.storage import Storage


def build_methods(nodes: Mapping[str, Mapping[str, Any]]) -> list[Method]:
    """The methods that the group ``method`` of a configuration describes, in its order.

    Several knobs with several values make every combination; of the values, the first knob's change slowest.

    Args:
        nodes: by name, ``_target_``, the label and the knobs. A preset may set knobs of a method that ``method=`` does
            not name; its node has no target, and makes no method.

    Raises:
        KvgaugeError: a method cannot be made.
    """
    return [
        cast("Method", build(one, f"method={name}: "))
        for name, node in nodes.items()
        if "_target_" in node
        for one in _variations(name, node, nodes)
    ]


def build_storages(nodes: Mapping[str, Mapping[str, Any]]) -> list[Storage]:
    """The storages that the group ``storage`` of a configuration describes; see ``build_methods``."""
    return [
        cast("Storage", build(one, f"storage={name}: "))
        for name, node in nodes.items()
        if "_target_" in node
        for one in _variations(name, node, {}, group="storage")
    ]


def _variations(
    name: str,
    node: Mapping[str, Any],
    nodes: Mapping[str, Mapping[str, Any]],
    within: Sequence[str] = (),
    group: str = "method",
) -> list[dict[str, Any]]:
    """The node once for each combination of values, with a label for each; itself if no knob has several.

    Args:
        name: name of the method.
        node: its target, label and knobs.
        nodes: all nodes of the run, for the knobs of wrapped methods.
        within: the methods that wrap this one.
        group: ``method`` or ``storage``.
    """
    settings = wrapped_settings(find_class(node["_target_"]))
    for setting in settings:
        if node.get(setting) is not None:
            node = {**node, setting: _scorers(f"method.{name}.{setting}", node[setting], nodes, (*within, name))}
    given = {knob: value for knob, value in node.items() if knob not in ("_target_", "label")}
    lists = {knob: value for knob, value in given.items() if isinstance(value, list)}
    several = _varied(f"{group}.{name}", node, lists) if lists else {}
    if not several:
        return [dict(node)]
    label = check_name(node.get("label", name), f"{group}.{name}.label")
    short = _short_names(given)
    made = []
    for one in product(*several.values()):
        parts = [_part(knob, short[knob], value, knob in settings) for knob, value in zip(several, one, strict=True)]
        made.append({**node, **dict(zip(several, one, strict=True)), "label": "_".join([label, *parts])})
    return made


def _scorers(
    setting: str, given: object, nodes: Mapping[str, Mapping[str, Any]], within: Sequence[str]
) -> dict[str, Any] | list[dict[str, Any]]:
    """What a wrapper wraps, each as its name with all of its knobs; a list if several were given, or one with several.

    Raises:
        ConfigError: a method would wrap itself, or there is none of this name.
    """
    found = []
    for one in given if isinstance(given, list) else [given]:
        base, knobs = split_scorer(one, setting)
        if base in within:
            raise ConfigError(f"{setting}={base} wraps a method in itself: name another one, as {setting}=snapkv")
        set_here = {knob: value for knob, value in nodes.get(base, {}).items() if knob not in ("_target_", "label")}
        node = {**method_node(base, setting), **set_here, **knobs}
        found += [
            {base: {knob: value for knob, value in one.items() if knob != "_target_"}}
            for one in _variations(base, node, nodes, within)
        ]
    return found if isinstance(given, list) or len(found) > 1 else found[0]


def _varied(name: str, node: Mapping[str, Any], lists: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """The knobs whose list is one of values, each value once."""
    method = find_class(node["_target_"])
    if not is_dataclass(method):
        return {}  # which is refused with the reason later
    try:
        kinds = field_types(method)
    except (NameError, TypeError) as error:
        raise ConfigError(
            f"{name}: the types of its fields cannot be read ({error}), and so not whether {next(iter(lists))} "
            "is a list: import what they name, and not for type checkers only"
        ) from error
    kinds = {**{setting: kinds[field] for setting, field in wrapped_settings(method).items()}, **kinds}
    several = {knob: values for knob, values in lists.items() if knob in kinds and not _is_list(kinds[knob])}
    if empty := [knob for knob, values in several.items() if not values]:
        raise ConfigError(f"{name}.{empty[0]}=[] has no value: give it one, or several")
    return {knob: list({repr(value): value for value in values}.values()) for knob, values in several.items()}


def _is_list(kind: Any) -> bool:
    """Whether an annotation has a list, a tuple, a set or anything at all among its alternatives."""
    kind = getattr(kind, "__value__", kind)  # what a type alias stands for
    origin = get_origin(kind)
    if origin is Annotated:
        return _is_list(get_args(kind)[0])
    if origin in (Union, types.UnionType):
        return any(_is_list(part) for part in get_args(kind))
    part = origin or kind
    return part in (Any, object) or (
        isinstance(part, type) and issubclass(part, Iterable) and not issubclass(part, str | bytes | Mapping)
    )


def _short_names(knobs: Iterable[str]) -> dict[str, str]:
    """By knob, as few of its first letters as tell it from the others; all of them if another begins with it."""
    known = list(knobs)
    return {knob: next(_beginnings(knob, [other for other in known if other != knob])) for knob in known}


def _beginnings(knob: str, others: Sequence[str]) -> Iterator[str]:
    for length in range(1, len(knob)):
        begun = knob[:length]
        if not begun.endswith("_") and not any(other.startswith(begun) for other in others):
            yield begun
    yield knob


def _part(knob: str, short: str, value: Any, wrapped: bool) -> str:
    """A knob and its value as a part of a label; of a wrapped method, its label alone."""
    if wrapped and isinstance(value, Mapping):
        ((name, knobs),) = value.items()
        return check_name(knobs.get("label", name), "the wrapped method's label")
    return f"{short}{_spelt(value)}"


def _spelt(value: object) -> str:
    """A value as a part of a name, in the spelling of the command line."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", value if isinstance(value, str) else json.dumps(value))
