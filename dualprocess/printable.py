"""Shows text of others on a terminal, without characters that control the terminal."""

from __future__ import annotations

import io
import json
import re
import sys

#: Control characters of both sets except the line break; characters that change the reading
#: direction; halves of surrogate pairs; characters without width that don't join letters.
_UNSEEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
_BREAKS = re.compile("\r\n|[\n\r\v\f\x85\u2028\u2029]")


def lines(text: str) -> str:
    """The text without invisible characters; line breaks stay."""
    return _UNSEEN.sub("", _BREAKS.sub("\n", text).replace("\t", " "))


def line(text: str) -> str:
    """The same on one line, for a name in a longer text."""
    return lines(text).replace("\n", " ")


def as_json(value: object) -> str:
    """The value as JSON that a terminal can show as well: invisible characters are escapes."""
    # The only invisible character of ASCII that JSON does not escape.
    return json.dumps(value, indent=2).replace("\x7f", "\\u007f")


def replace_what_cannot_be_encoded() -> None:
    """From now on standard output has ``?`` for what the terminal or pipe has no code for.

    Standard error has escapes by itself.
    """
    # Tests replace it.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
