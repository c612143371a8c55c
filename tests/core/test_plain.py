"""Text from outside: without control characters, and without secrets."""

from __future__ import annotations

import pytest

from awsha.core.plain import HIDDEN, printable, redacted

TOKEN = "IQoJb3JpZ2luX2VjEXAMPLE+token/of=a-role"
KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
LEAKS = {
    "http.client quotes a header": f"An HTTP Client raised an unhandled exception: Invalid header value b'{TOKEN}\\n'",
    "the canonical request": f"should have been 'POST\n/\n\nhost:ec2.example\nx-amz-security-token:{TOKEN}\n\nhost'",
    "a signature": f"Authorization: AWS4-HMAC-SHA256 Credential=AKIAX/20261122, Signature={'5d67' * 16}",
    "in JSON": f'{{"SecretAccessKey": "{KEY}", "SessionToken": "{TOKEN}"}}',
    "in XML": f"<SecretAccessKey>{KEY}</SecretAccessKey><SessionToken>{TOKEN}</SessionToken>",
    "in a shell": f"AWS_SECRET_ACCESS_KEY={KEY} AWS_SESSION_TOKEN='{TOKEN}'",
    "a token by itself": f"cannot use {TOKEN} any more",
    "a proxy": "Failed to connect to http://user:pa55word@proxy:3128/x",
    "metadata": "X-aws-ec2-metadata-token: AQAEAfake==",
}


@pytest.mark.parametrize("what", LEAKS)
def test_secrets_are_found_where_they_are_known_to_leak(what: str):
    shown = redacted(LEAKS[what])
    assert HIDDEN in shown
    for secret in (TOKEN, KEY, "5d67", "pa55word", "AQAEAfake"):
        assert secret not in shown


@pytest.mark.parametrize(
    "text",
    [
        "DescribeVolumes: UnauthorizedOperation: You are not authorized. Encoded authorization failure message: abc",
        "Could not connect to the endpoint URL: http://10.0.0.2:4566/",
        "CreateTags: AuthFailure: AWS was not able to validate the provided access credentials",
        "SignatureDoesNotMatch: Signature expired: 20261122T1 is now earlier than 20261122T2",
    ],
)
def test_what_helps_is_left(text: str):
    assert redacted(text) == text


def test_known_values_are_hidden_but_no_ordinary_words():
    assert redacted(f"it said {KEY}!", [KEY + "\n", "", "lab"]) == f"it said {HIDDEN}!"
    assert redacted("the lab", ["lab"]) == "the lab"


def test_nothing_plays_tricks_on_a_terminal():
    assert printable("a\x1b[2Jb\nc\td\x00é ") == "a?[2Jb c d?é"
