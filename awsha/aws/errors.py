"""EC2's refusals and failures as one typed error, told apart by error code (AWS: "Error codes for the EC2 API")."""

from __future__ import annotations

from enum import StrEnum

from awsha.aws.discreet import harmless
from awsha.core.errors import AwshaError
from awsha.core.steps import Failure

_CODE_LIMIT = 80  # the longest of EC2's has 60 characters
_TEXT_LIMIT = 300  # an UnauthorizedOperation carries kilobytes of encoded message; a person reads the beginning


class Kind(StrEnum):
    """What an error means for the caller."""

    THROTTLED = "throttled"  # asked too often: retried here, under the deadline
    SERVER = "server"  # EC2's own failure: look again
    DENIED = "denied"  # the role lacks a permission
    CLOCK = "clock"  # the signature was refused: clock or keys
    CREDENTIALS = "credentials"  # none found, or expired
    NOT_FOUND = "not-found"
    STATE = "state"  # the resource is in another state than the caller thought: look again
    NOT_HELD = "not-held"  # detach or unassign of what is not there: done already
    NAME_TAKEN = "name-taken"  # EC2 device name in use on that instance
    LIMIT = "limit"
    ZONE = "zone"  # volume and instance are in different availability zones
    ADDRESS_TAKEN = "address-taken"
    DRY_RUN_OK = "dry-run-ok"
    TRANSPORT = "transport"  # no answer: it may or may not have taken effect
    REPLY = "reply"  # an answer that cannot be understood
    INVALID = "invalid"  # a parameter was refused
    OTHER = "other"


_KINDS: dict[str, Kind] = {
    code: kind
    for kind, codes in {
        Kind.THROTTLED: "RequestLimitExceeded Throttling ThrottlingException ThrottledException RequestThrottled "
        "RequestThrottledException TooManyRequestsException EC2ThrottledException SlowDown 429",
        Kind.SERVER: "InternalError InternalFailure InternalServerError ServiceUnavailable Unavailable RequestTimeout",
        Kind.DENIED: "UnauthorizedOperation AccessDenied AccessDeniedException",
        Kind.CLOCK: "RequestExpired RequestInTheFuture RequestTimeTooSkewed AuthFailure SignatureDoesNotMatch "
        "InvalidSignatureException",
        Kind.CREDENTIALS: "ExpiredToken ExpiredTokenException InvalidClientTokenId UnrecognizedClientException "
        "MissingAuthenticationToken MissingAuthenticationTokenException IncompleteSignature",
        Kind.STATE: "IncorrectState IncorrectInstanceState VolumeInUse IncorrectModificationState InvalidState",
        Kind.NOT_HELD: "InvalidAttachment.NotFound",
        Kind.ZONE: "InvalidVolume.ZoneMismatch",
        Kind.ADDRESS_TAKEN: "Resource.AlreadyAssigned InvalidIPAddress.InUse",
        Kind.DRY_RUN_OK: "DryRunOperation",
        Kind.INVALID: "UnknownParameter ValidationError MalformedQueryString InvalidAction",
    }.items()
    for code in codes.split()
}

_HINTS: dict[Kind, str] = {
    Kind.THROTTLED: "the account makes too many EC2 requests in this region; it is tried again with growing pauses",
    Kind.SERVER: "EC2 has a problem of its own; it is looked at again. See the AWS Health Dashboard of this region",
    Kind.DENIED: "allow ec2:{action} to this instance's role; `awsha iam-policy` prints the policy that is needed",
    Kind.CLOCK: "EC2 refused the signature: compare the clock (`timedatectl`), then the access keys",
    Kind.CREDENTIALS: "give this instance an IAM role (instance profile), or set AWS_PROFILE or AWS_ACCESS_KEY_ID "
    "and AWS_SECRET_ACCESS_KEY; temporary keys may have expired",
    Kind.NOT_FOUND: "compare the id with awsha.toml, and the region; `awsha check` tells which one is missing",
    Kind.STATE: "the resource changed meanwhile: it is looked at again",
    Kind.NOT_HELD: "nothing to do: it is not there any more",
    Kind.NAME_TAKEN: "another device name is tried",
    Kind.LIMIT: "the instance type allows no more: detach a volume, give back an address, or take a larger type",
    Kind.ZONE: "an EBS volume serves one availability zone only: put all nodes and the volume into the same zone",
    Kind.ADDRESS_TAKEN: "another network interface holds the address: find it with "
    "`aws ec2 describe-network-interfaces --filters Name=addresses.private-ip-address,Values=ADDRESS`",
    Kind.DRY_RUN_OK: "it would have worked",
    Kind.TRANSPORT: "check the route, the security group and DNS to the EC2 endpoint (or AWS_ENDPOINT_URL); "
    "the request may have taken effect, so it is looked at again",
    Kind.REPLY: "check what answers at the EC2 endpoint (proxy? AWS_ENDPOINT_URL?)",
    Kind.INVALID: "compare awsha.toml with what exists: `awsha check`",
    Kind.OTHER: "see https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html",
}

# Codes whose next action is more special than that of their kind.
_CODE_HINTS: dict[str, str] = {
    "OperationNotPermitted": "the instance may have stop protection: "
    "`aws ec2 modify-instance-attribute --no-disable-api-stop --instance-id ID`",
    "NoRegion": "set region in awsha.toml, or AWS_REGION",
    "ProfileNotFound": "AWS_PROFILE names a profile that ~/.aws/config does not have",
    "SSLError": "compare the clock, and the CA bundle (AWS_CA_BUNDLE), with what the endpoint presents",
}

_FAILURES = {
    Kind.THROTTLED: Failure.THROTTLED,
    Kind.DENIED: Failure.DENIED,
    Kind.NAME_TAKEN: Failure.NAME_TAKEN,
    Kind.TRANSPORT: Failure.TIMEOUT,
}


def kind_of(code: str, action: str = "", message: str = "") -> Kind:
    """The kind of EC2 error `code` in answer to `action`. `message` only tells apart codes with two meanings."""
    if code in _KINDS:
        return _KINDS[code]
    if code == "InvalidParameterValue":
        if action == "UnassignPrivateIpAddresses":
            return Kind.NOT_HELD  # this interface does not have the address
        # One code for a bad device name and for one that is in use: here alone the message decides.
        taken = action == "AttachVolume" and "already in use" in message
        return Kind.NAME_TAKEN if taken else Kind.INVALID
    if code.endswith("LimitExceeded"):
        return Kind.LIMIT
    if code.endswith(".NotFound"):
        return Kind.NOT_FOUND
    if code.startswith(("Invalid", "Missing")) or code.endswith(".Malformed"):
        return Kind.INVALID
    if code.isdigit() and code.startswith("5"):
        return Kind.SERVER  # botocore's code for a reply without a body that it can read is the HTTP status
    return Kind.OTHER


class Ec2Error(AwshaError):
    """One EC2 request that did not do what was asked.

    `action`: DescribeVolumes and so on. `code`: EC2's error code, or botocore's exception name without an answer.
    `kind`: what it means. `request_id`: for AWS support, empty when there was no answer.
    """

    def __init__(self, action: str, code: str, message: str, *, request_id: str = "", kind: Kind | None = None) -> None:
        self.action = action
        self.code = code
        self.request_id = request_id
        self.kind = kind or kind_of(code, action, message)
        message = harmless(message)
        text = message if len(message) <= _TEXT_LIMIT else message[:_TEXT_LIMIT] + "…"
        hint = _CODE_HINTS.get(code) or _HINTS[self.kind].replace("{action}", action)
        super().__init__(f"{action}: {code}: {text}", hint=hint)

    @property
    def failure(self) -> Failure:
        """The failure that a decision may depend on."""
        return _FAILURES.get(self.kind, Failure.OTHER)


def reply_error(action: str, what: str) -> Ec2Error:
    """The error for an answer that came, and that has not the shape or the words that EC2 documents."""
    return Ec2Error(action, "UnexpectedReply", what, kind=Kind.REPLY)


def out_of_time(action: str, what: str = "no time left to ask") -> Ec2Error:
    """The error for a request that was not sent, or not waited for, because the deadline is over."""
    return Ec2Error(action, "OutOfTime", what, kind=Kind.TRANSPORT)


def typed(error: BaseException, action: str) -> Ec2Error:
    """Turn whatever botocore raised for `action` into an Ec2Error. Never raises."""
    import botocore.exceptions as raised

    if isinstance(error, Ec2Error):
        return error
    if isinstance(error, raised.ClientError):
        return _refusal(error.response, action)
    if isinstance(error, raised.NoRegionError):
        return Ec2Error(action, "NoRegion", "no region is known", kind=Kind.INVALID)
    name = type(error).__name__
    text = " ".join(str(error).split())
    return Ec2Error(action, name, text, kind=_kind_of_exception(error))


def _refusal(response: object, action: str) -> Ec2Error:
    """An answer with an error code. A proxy may have written it, so every part may be missing."""
    body = response.get("Error") if isinstance(response, dict) else None
    meta = response.get("ResponseMetadata") if isinstance(response, dict) else None
    body = body if isinstance(body, dict) else {}
    meta = meta if isinstance(meta, dict) else {}
    code = harmless(str(body.get("Code") or meta.get("HTTPStatusCode") or "Unknown"))[:_CODE_LIMIT]
    return Ec2Error(action, code, str(body.get("Message") or ""), request_id=str(meta.get("RequestId") or ""))


def _kind_of_exception(error: BaseException) -> Kind:
    """The kind of an exception that no answer of EC2 is behind."""
    import botocore.exceptions as raised

    credentials = (
        raised.NoCredentialsError,
        raised.PartialCredentialsError,
        raised.CredentialRetrievalError,
        raised.ProfileNotFound,
        raised.TokenRetrievalError,
        raised.UnauthorizedSSOTokenError,
        raised.SSOError,
        raised.InvalidConfigError,
    )
    if isinstance(error, credentials):
        return Kind.CREDENTIALS
    # The two bases of connect and read time-outs, closed connections, and SSL, proxy and name failures.
    if isinstance(error, raised.HTTPClientError | raised.ConnectionError | OSError):
        return Kind.TRANSPORT
    if isinstance(error, raised.ParamValidationError):
        return Kind.INVALID
    # What is left of botocore's own (unknown profile settings, bad endpoint URL) is not about a reply.
    return Kind.OTHER if isinstance(error, raised.BotoCoreError) else Kind.REPLY
