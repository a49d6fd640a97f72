"""The one exception for everything a user can get wrong.

Its text is one line that names the file, the dotted key, the value, the rule and, where there is
one, the nearest valid name. The command line prints it and exits with status 2.
"""

import difflib
import os
from collections.abc import Iterable
from typing import Any

MAX_KEY = 200  # characters of a key that are shown
MAX_NAME = 200  # of a name that others are compared with; a longer one is like none

_MISSING: Any = ...  # Ellipsis stays itself when an error is pickled


class InputError(ValueError):
    """The user's input broke a rule.

    Args:
        rule: What is required, as the end of a sentence about the value.
        key: Dotted path of the offending entry, empty if the whole file is meant.
        value: The offending value; left out of the message if not given.
        file: The file the value came from.
        nearest: A valid name close to the one that was given.
    """

    def __init__(
        self,
        rule: str,
        *,
        key: str = "",
        value: Any = _MISSING,
        file: str | os.PathLike[str] | None = None,
        nearest: str | None = None,
    ) -> None:
        self.rule = rule
        self.key = key
        self.value = value
        self.file = None if file is None else os.fspath(file)
        self.nearest = nearest
        super().__init__(rule)

    def __str__(self) -> str:
        place = [part for part in (self.file, _shorten(self.key, MAX_KEY)) if part]
        if self.value is not _MISSING:
            place.append(_shorten(repr(self.value)))
        text = ": ".join([*place, self.rule])
        text = text if self.nearest is None else f"{text}; did you mean {self.nearest!r}?"
        return _printable(" ".join(text.split()))

    def within(
        self, *, file: str | os.PathLike[str] | None = None, key: str | None = None
    ) -> "InputError":
        """The same error, placed in `file` and below the dotted `key`."""
        parts = [part for part in (key, self.key) if part]
        return InputError(
            self.rule,
            key=".".join(parts),
            value=self.value,
            file=self.file if self.file is not None else file,
            nearest=self.nearest,
        )


def nearest_name(name: object, valid: Iterable[str]) -> str | None:
    """The entry of `valid` most like `name`, or None if nothing is close."""
    names = list(valid)
    if len(str(name)) > MAX_NAME:
        return None
    inside = [other for other in names if other.rpartition(".")[2] == name]  # "ap": "metrics.ap"
    matches = inside or difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    return matches[0] if matches else None


def _printable(text: str) -> str:
    """Control characters as escapes: a terminal would obey them."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _shorten(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
