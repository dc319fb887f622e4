"""Values that check themselves: each field of a frozen dataclass is what its annotation says, or one line tells what it is not.

An annotation holds the type, the range (``msgspec.Meta``), the choices (``Literal``) and, where the words made of these
do not help a user, a ``Refusal``. It is the one place where they stand: error texts, completion and the tests of the
documentation read them there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from harness.errors import ConfigError

LARGEST = 2**53
"""Of a number in a file: what JSON's readers agree on."""
Count = Annotated[int, Meta(ge=0, le=LARGEST)]
Size = Annotated[int, Meta(ge=1, le=LARGEST)]
_T = TypeVar("_T")
_NOUNS: Mapping[object, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    Sequence: "a list",
    Mapping: "a mapping",
}


class Refusal(NamedTuple):
    """Part of an annotation: the error of a value that does not fit.

    Attributes:
        fact: what is wrong, after the setting and its value: ``names no folder``.
        remedy: what to give instead.
    """

    fact: str
    remedy: str


def check(value: object, group: str = "", names: Mapping[str, str] | None = None) -> None:
    """Refuse a dataclass that has a field which is not what its annotation says; for its ``__post_init__``.

    Args:
        value: the dataclass.
        group: the group of settings that its fields are; "" for settings without a group.
        names: settings whose name is not their field's, by field.

    Raises:
        ConfigError: with the first such field.
    """
    for field, kind in field_types(type(value)).items():
        given = getattr(value, field)
        if not fits(given, kind):
            setting = ".".join(filter(None, [group, (names or {}).get(field, field)]))
            fact, remedy = _refusal(kind)
            raise ConfigError(f"{setting}={given} {fact}: {remedy}")


def made(kind: type[_T], values: Mapping[str, Any], group: str) -> _T:
    """A dataclass of a group of settings, which has to have all of its fields and no others.

    Args:
        kind: the dataclass.
        values: from the configuration.
        group: the group's name.

    Raises:
        ConfigError: a setting is missing, unknown, or not what it is to be.
    """
    known = field_types(kind)
    if wrong := set(values) ^ set(known):
        raise ConfigError(
            f"{group} is to have {', '.join(sorted(known))}, no more and no less, not {wrong.pop()}: --cfg job prints it"
        )
    return kind(**values)


def fits(value: object, kind: Any) -> bool:
    """True when a value is of a type, within the ranges and choices of its annotation. Nothing is converted; true is no number."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def field_types(kind: Any) -> Mapping[str, Any]:
    """The annotations of a dataclass, by field."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind)}


def choices(kind: Any) -> list[str]:
    """The choices of an annotation, as a configuration writes them: ``null`` for None, first."""
    parts = [part for part, _ in _parts(kind)]
    listed = [str(choice) for part in parts if get_origin(part) is Literal for choice in get_args(part)]
    return ["null", *listed] if type(None) in parts else listed


def _refusal(kind: Any) -> Refusal:
    """What is said of a value that does not fit an annotation."""
    parts = list(_parts(kind))
    own = next((note for _, notes in parts for note in notes if isinstance(note, Refusal)), None)
    if own is not None:
        return own
    if all(part is type(None) or get_origin(part) is Literal for part, _ in parts):
        *others, last = choices(kind)
        return Refusal("is unknown", f"use {', '.join(others)} or {last}")
    part, notes = next((part, notes) for part, notes in parts if part is not type(None))
    if part is bool:
        return Refusal("is neither true nor false", "use one of them")
    least = next((f" of {note.ge} or more" for note in notes if isinstance(note, Meta) and note.ge is not None), "")
    return Refusal(f"is not {_NOUNS[get_origin(part) or part]}{least}", "give it one" if part is str else "use one")


def _parts(kind: Any, notes: Sequence[object] = ()) -> Iterator[tuple[Any, Sequence[object]]]:
    """The alternatives of an annotation, each with what is noted of it."""
    if get_origin(kind) is Annotated:
        inside, *more = get_args(kind)
        yield from _parts(inside, [*notes, *more])
    elif get_origin(kind) in (Literal, Sequence, Mapping) or not get_args(kind):
        yield kind, notes
    else:
        for part in get_args(kind):
            yield from _parts(part, notes)
