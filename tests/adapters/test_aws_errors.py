"""EC2's error codes: each has one kind, and each kind says what to do next."""

from __future__ import annotations

import botocore.exceptions
import pytest

from awsha.aws.errors import Ec2Error, Kind, kind_of, out_of_time, reply_error, typed
from awsha.core.steps import Failure

CASES = [
    ("RequestLimitExceeded", "AttachVolume", Kind.THROTTLED),
    ("Throttling", "DescribeVolumes", Kind.THROTTLED),
    ("429", "DescribeVolumes", Kind.THROTTLED),
    ("InternalError", "DescribeVolumes", Kind.SERVER),
    ("InternalFailure", "DescribeVolumes", Kind.SERVER),
    ("ServiceUnavailable", "DescribeVolumes", Kind.SERVER),
    ("Unavailable", "DescribeVolumes", Kind.SERVER),
    ("503", "DescribeVolumes", Kind.SERVER),
    ("UnauthorizedOperation", "StopInstances", Kind.DENIED),
    ("RequestExpired", "DescribeVolumes", Kind.CLOCK),
    ("AuthFailure", "DescribeVolumes", Kind.CLOCK),
    ("SignatureDoesNotMatch", "DescribeVolumes", Kind.CLOCK),
    ("ExpiredToken", "DescribeVolumes", Kind.CREDENTIALS),
    ("InvalidVolume.NotFound", "DescribeVolumes", Kind.NOT_FOUND),
    ("InvalidInstanceID.NotFound", "DescribeInstances", Kind.NOT_FOUND),
    ("InvalidNetworkInterfaceID.NotFound", "AssignPrivateIpAddresses", Kind.NOT_FOUND),
    ("IncorrectState", "DetachVolume", Kind.STATE),
    ("IncorrectInstanceState", "StopInstances", Kind.STATE),
    ("VolumeInUse", "AttachVolume", Kind.STATE),
    ("InvalidAttachment.NotFound", "DetachVolume", Kind.NOT_HELD),
    ("InvalidParameterValue", "UnassignPrivateIpAddresses", Kind.NOT_HELD),
    ("InvalidParameterValue", "AssignPrivateIpAddresses", Kind.INVALID),
    ("InvalidParameterValue", "AttachVolume", Kind.INVALID),
    ("AttachmentLimitExceeded", "AttachVolume", Kind.LIMIT),
    ("PrivateIpAddressLimitExceeded", "AssignPrivateIpAddresses", Kind.LIMIT),
    ("InvalidVolume.ZoneMismatch", "AttachVolume", Kind.ZONE),
    ("Resource.AlreadyAssigned", "AssignPrivateIpAddresses", Kind.ADDRESS_TAKEN),
    ("InvalidIPAddress.InUse", "AssignPrivateIpAddresses", Kind.ADDRESS_TAKEN),
    ("DryRunOperation", "StopInstances", Kind.DRY_RUN_OK),
    ("InvalidInstanceID.Malformed", "DescribeInstances", Kind.INVALID),
    ("MissingParameter", "AttachVolume", Kind.INVALID),
    ("OperationNotPermitted", "StopInstances", Kind.OTHER),
    ("SomethingNew", "StopInstances", Kind.OTHER),
]


@pytest.mark.parametrize(("code", "action", "kind"), CASES)
def test_each_code_has_its_kind(code: str, action: str, kind: Kind):
    assert kind_of(code, action) is kind


def test_a_device_name_in_use_is_told_from_a_bad_one_by_the_message_alone():
    taken = "Invalid value '/dev/sdf' for unixDevice. Attachment point /dev/sdf is already in use"
    assert kind_of("InvalidParameterValue", "AttachVolume", taken) is Kind.NAME_TAKEN
    assert kind_of("InvalidParameterValue", "AssignPrivateIpAddresses", taken) is Kind.INVALID


@pytest.mark.parametrize("kind", Kind)
def test_each_kind_has_a_next_action(kind: Kind):
    error = Ec2Error("AttachVolume", "X", "words", kind=kind)
    assert error.hint
    assert "{action}" not in error.hint


def test_a_denied_action_is_named_in_the_hint():
    assert "ec2:StopInstances" in Ec2Error("StopInstances", "UnauthorizedOperation", "").hint


def test_the_kilobytes_of_an_encoded_authorization_message_are_cut():
    assert len(Ec2Error("StopInstances", "UnauthorizedOperation", "x" * 9000).message) < 400


def test_decisions_see_the_failures_that_they_depend_on():
    failures = {code: Ec2Error("AttachVolume", code, "").failure for code in ("RequestLimitExceeded", "VolumeInUse")}
    assert failures == {"RequestLimitExceeded": Failure.THROTTLED, "VolumeInUse": Failure.OTHER}
    assert out_of_time("AttachVolume").failure is Failure.TIMEOUT
    assert Ec2Error("AttachVolume", "UnauthorizedOperation", "").failure is Failure.DENIED


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (botocore.exceptions.NoCredentialsError(), Kind.CREDENTIALS),
        (botocore.exceptions.ProfileNotFound(profile="x"), Kind.CREDENTIALS),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="u"), Kind.TRANSPORT),
        (botocore.exceptions.ConnectTimeoutError(endpoint_url="u"), Kind.TRANSPORT),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="u"), Kind.TRANSPORT),
        (botocore.exceptions.ConnectionClosedError(endpoint_url="u"), Kind.TRANSPORT),
        (botocore.exceptions.SSLError(endpoint_url="u", error="e"), Kind.TRANSPORT),
        (botocore.exceptions.ParamValidationError(report="r"), Kind.INVALID),
        (botocore.exceptions.NoRegionError(), Kind.INVALID),
        (botocore.exceptions.DataNotFoundError(data_path="d"), Kind.OTHER),
        (OSError("no route"), Kind.TRANSPORT),
        (ValueError("not a number"), Kind.REPLY),
        (botocore.exceptions.ClientError({"Error": {"Code": "VolumeInUse"}}, "AttachVolume"), Kind.STATE),
        (botocore.exceptions.ClientError({}, "AttachVolume"), Kind.OTHER),
        (reply_error("AttachVolume", "mad"), Kind.REPLY),
    ],
)
def test_whatever_botocore_raises_is_typed(raised: Exception, kind: Kind):
    error = typed(raised, "AttachVolume")
    assert error.kind is kind
    assert error.action == "AttachVolume"
    assert error.hint
