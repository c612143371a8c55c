"""Text from outside, made fit to be shown: nothing that plays tricks on a terminal or a log, and no secret. Pure.

Whoever has a file open on the volume chooses the name of the process, whoever may tag chooses the tags, and whatever
answers at the endpoint chooses the error: all of that is read by root on a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

SHORTEST = 8  # a value that is shorter than this stands in ordinary text too
HIDDEN = "(not shown)"
# Each hides what follows its first group. What is known to have leaked elsewhere: http.client quotes a header that it
# does not like (a token with a newline behind it), services quote the signed request that they refuse, libraries quote
# the address of a proxy or an endpoint with its password.
_SECRETS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(invalid header value ).+",
        r"(\b(?:x-amz-security-token|x-aws-ec2-metadata-token|aws_secret_access_key|aws_session_token|secretaccesskey|"
        r"sessiontoken|authorizationtoken)\b[\"'<>]*\s*[:=>]\s*[\"']?)[^\s\"'<>,&]+",
        r"(\bsignature\s*=\s*)[0-9a-z%/+=]+",
        r"()\b(?:FwoGZXIvYXdz|IQoJb3JpZ2lu|FQoGZXIvYXdz|AQoDYXdz)[a-z0-9/+=_-]*",  # how AWS's session tokens begin
        r"(//)[^/\s@\"']+(?=@)",
    )
)


def printable(text: str) -> str:
    """One line without control characters: blanks for line ends and tabs, `?` for what else is not printable."""
    if text.isprintable():
        return text.strip()
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text).strip()


def redacted(text: str, known: Iterable[str] = ()) -> str:
    """The text without what looks like a secret, and without the `known` ones."""
    for value in known:
        if len(value.strip()) >= SHORTEST:
            text = text.replace(value.strip(), HIDDEN)
    for pattern in _SECRETS:
        text = pattern.sub(rf"\g<1>{HIDDEN}", text)
    return text
