"""Reads NAME(setting=value, ...) as people write it in a configuration, and writes it as the record shows it."""

import difflib
import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, get_type_hints

import msgspec

from shared.errors import ConfigError

LONGEST = 400
"""Characters of a whole spelling; that also bounds how deep it can be nested."""

_TOKEN = re.compile(r"[(),=]|[^\s(),=]+")
_SIGNS = ("(", ")", ",", "=")
_EXAMPLE = "write it like fedadam(server_lr=0.03, tau=0.001)"
_WORDS = {"`int`": "a whole number", "`float`": "a number", "`bool`": "true or false", "`str`": "a word"}


@dataclass(frozen=True)
class Call:
    """A name with what was said about its settings: words, or names with settings of their own."""

    name: str
    settings: "Mapping[str, str | Call]"


def parse(text: str) -> Call:
    """Read `NAME` or `NAME(setting=value, ...)`, where a value is a word, a number, or is written like that itself.

    Raises:
        ConfigError: it is written in another way; says where.
    """
    if len(text) > LONGEST:
        raise ConfigError(f"algorithm: {len(text)} characters are too many; {LONGEST} are the most")
    tokens = deque(_TOKEN.findall(text))
    call = _call(tokens)
    if tokens:
        raise _unreadable(f"there is more after it: {tokens[0]!r}")
    return call


def build(call: Call, among: Mapping[str, type]) -> Any:
    """Make what `call` names out of the dataclasses in `among`, with its settings.

    Raises:
        ConfigError: a name or a setting is not known (suggests one), or a value is impossible (names its setting).
    """
    kind = among.get(call.name)
    if kind is None:
        raise ConfigError(f"algorithm: {call.name!r} is not known; {_meant(call.name, among)}")
    hints = get_type_hints(kind, include_extras=True)
    declared = {one.name: one for one in fields(kind)}
    values: dict[str, Any] = {}
    for key, value in call.settings.items():
        if not declared:
            raise ConfigError(f"algorithm: {call.name} has no settings, and so no {key!r}")
        if key not in declared:
            raise ConfigError(f"algorithm: {call.name} has no setting {key!r}; {_meant(key, declared)}")
        choices = declared[key].metadata.get("among")
        if choices is not None:
            values[key] = build(value if isinstance(value, Call) else Call(value, {}), choices)
        elif isinstance(value, Call):
            raise ConfigError(f"algorithm: {call.name}'s {key} is a plain value, and {value.name}(...) is none")
        else:
            values[key] = _read(value, hints[key], f"{call.name}'s {key}")
    for one in declared.values():
        if one.name not in values and one.default is MISSING:
            raise ConfigError(f"algorithm: {call.name} needs {one.name}, {one.metadata['help']}")
    return kind(**values)


def spell(made: Any, among: Mapping[str, type]) -> str:
    """Write what `build` made: its name, and the settings that are not at their defaults."""
    name = next(name for name, kind in among.items() if kind is type(made))
    said = [
        f"{one.name}={_written(getattr(made, one.name), one.metadata.get('among'))}"
        for one in fields(made)
        if getattr(made, one.name) != one.default
    ]
    return f"{name}({', '.join(said)})" if said else name


def _call(tokens: deque[str]) -> Call:
    name, settings = _word(tokens, "a name"), dict[str, str | Call]()
    if not tokens or tokens[0] != "(":
        return Call(name, settings)
    tokens.popleft()
    while tokens and tokens[0] != ")":
        key = _word(tokens, f"a setting of {name}")
        if key in settings:
            raise _unreadable(f"{key} is said twice")
        _sign(tokens, "=", after=key)
        value = _call(tokens)
        settings[key] = value if value.settings else value.name
        if tokens and tokens[0] != ")":
            _sign(tokens, ",", after=value.name)
    _sign(tokens, ")", after=name)
    return Call(name, settings)


def _word(tokens: deque[str], what: str) -> str:
    if not tokens or tokens[0] in _SIGNS:
        raise _unreadable(f"{what} is missing at {tokens[0]!r}" if tokens else f"{what} is missing at the end")
    return tokens.popleft()


def _sign(tokens: deque[str], sign: str, *, after: str) -> None:
    if not tokens or tokens.popleft() != sign:
        raise _unreadable(f"{sign!r} is missing after {after!r}")


def _unreadable(why: str) -> ConfigError:
    return ConfigError(f"algorithm: {why}; {_EXAMPLE}")


def _read(word: str, kind: Any, what: str) -> Any:
    """Read a word as the type of its setting."""
    try:
        return msgspec.convert(word, kind, strict=False)
    except msgspec.ValidationError as error:
        wanted = str(error)
        for term, words in _WORDS.items():
            wanted = wanted.replace(term, words)
        raise ConfigError(f"algorithm: {what} = {word!r} is impossible: {wanted[:1].lower()}{wanted[1:]}") from None


def _written(value: Any, among: Mapping[str, type] | None) -> str:
    if among is not None:
        return spell(value, among)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name.lower(), list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
