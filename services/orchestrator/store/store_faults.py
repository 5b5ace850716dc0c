"""What an object store's error means, in a few words for the owner of a job."""

from __future__ import annotations

import re

_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"status code: (\d{3}(?: [A-Z][A-Za-z ]+)?)")
#: As the HTTP client below obstore calls them.
_NO_CONNECTION, _LATE = "kind: Connect", "kind: Timeout"


def reason(error: Exception) -> str:
    """Never a path, an address or a key."""
    text = str(error)
    if code := _CODE.search(text):
        return f"S3 says {code[1]}"
    if status := _STATUS.search(text):
        return f"it answers {status[1]}"
    if _NO_CONNECTION in text:
        return "it can't be reached"
    if _LATE in text:
        return "it does not answer"
    # What went wrong comes last; before it are paths of the server, after it a dump.
    return text.partition("\n")[0].rpartition(": ")[2] or type(error).__name__


def is_bucket_gone(error: Exception) -> bool:
    """obstore takes a missing bucket for a missing file."""
    code = _CODE.search(str(error))
    return code is not None and code[1] == "NoSuchBucket"
