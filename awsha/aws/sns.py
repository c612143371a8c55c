"""The one door to SNS: a message to a topic, with time-outs.

It is also a program (`python -m awsha.aws.sns`, the message as JSON on standard input): botocore's model of SNS would
stay in the agent's memory, 7 MiB, for a message now and then.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from awsha.core.errors import AwshaError

CONNECT_TIMEOUT_S = 2.0
READ_TIMEOUT_S = 5.0
FIFO = ".fifo"
_HINTS = {
    "AuthorizationError": "allow sns:Publish on the topic to this instance's role: awsha iam-policy has it",
    "AccessDenied": "allow sns:Publish on the topic to this instance's role: awsha iam-policy has it",
    "NoCredentialsError": "give the instance a role (aws ec2 associate-iam-instance-profile)",
    "NotFound": "correct sns_topic in awsha.toml, or create the topic",
}
_KEY_HINT = "the topic's KMS key must allow kms:GenerateDataKey and kms:Decrypt to this instance's role"
_TRY_HINT = "awsha check --notify tries it again"
_ROUTE_HINT = "check the route, the security group and DNS to the SNS endpoint (or AWS_ENDPOINT_URL)"


def main() -> int:
    """Publish what standard input says. 0: sent; 1: not, and standard output has why, and a hint, as JSON."""
    try:
        publish(**json.load(sys.stdin))
    except AwshaError as error:
        json.dump([error.message, error.hint], sys.stdout)
        return 1
    return 0


def region_of(topic: str) -> str:
    """The region that a topic's ARN names."""
    return topic.split(":")[3]


def publish(topic: str, subject: str, text: str, *, group: str, once: str) -> None:
    """Send one message. `group`, `once`: order and identity of it, where the topic is a FIFO.

    Takes at most a few seconds: one attempt, with both time-outs. Raises AwshaError.
    """
    from awsha.aws.client import create_client

    params = {"TopicArn": topic, "Subject": subject, "Message": text}
    if topic.endswith(FIFO):
        params |= {"MessageGroupId": group, "MessageDeduplicationId": once}
    client: Any = None
    try:
        client = create_client(region_of(topic), CONNECT_TIMEOUT_S, READ_TIMEOUT_S, 1, service="sns")
        client.publish(**params)
    except Exception as raw:
        raise _typed(raw) from raw
    finally:
        if client is not None:
            client.close()


def _typed(raw: Exception) -> AwshaError:
    """What botocore raised, with a hint."""
    response = getattr(raw, "response", None)
    error = response.get("Error", {}) if isinstance(response, dict) else {}
    code = str(error.get("Code") or type(raw).__name__)
    told = " ".join(str(error.get("Message") or raw).split())[:300]
    hint = _KEY_HINT if code.startswith("KMS") else _HINTS.get(code, _TRY_HINT if error else _ROUTE_HINT)
    return AwshaError(f"sns:Publish: {code}: {told}", hint=hint)


if __name__ == "__main__":
    sys.exit(main())
