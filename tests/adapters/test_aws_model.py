"""awsha's table of EC2's API against botocore's own model, and its partitions against botocore's own endpoints."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest
from botocore.loaders import Loader
from botocore.regions import EndpointResolver

from awsha.aws.client import create_client, endpoints
from awsha.aws.model import API_VERSION, OPERATIONS, service_model

OURS = service_model()


@pytest.fixture(scope="module")
def theirs() -> dict[str, Any]:
    model: dict[str, Any] = Loader().load_service_model("ec2", "service-2", API_VERSION)
    return model


def compare(ours: str, theirs: str, model: dict[str, Any], where: str) -> None:
    """Everything that our shape says, theirs says too."""
    mine, other = OURS["shapes"][ours], model["shapes"][theirs]
    assert mine["type"] == other["type"], where
    if mine["type"] == "list":
        compare(mine["member"]["shape"], other["member"]["shape"], model, f"{where}[]")
    for name, member in mine.get("members", {}).items():
        found = other["members"].get(name)
        assert found is not None, f"{where}.{name}: botocore has no such member"
        assert member.get("locationName") == found.get("locationName"), f"{where}.{name}"
        assert "queryName" not in found, f"{where}.{name}: the request would use another name"
        compare(member["shape"], found["shape"], model, f"{where}.{name}")


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_an_operation_is_as_in_botocore(name: str, theirs: dict[str, Any]):
    ours, other = OURS["operations"][name], theirs["operations"][name]
    assert ours["http"] == other["http"]
    compare(ours["input"]["shape"], other["input"]["shape"], theirs, name)
    required = theirs["shapes"][other["input"]["shape"]].get("required", [])
    assert set(required) <= set(OURS["shapes"][ours["input"]["shape"]]["members"])
    if "output" in ours:
        compare(ours["output"]["shape"], other["output"]["shape"], theirs, f"{name} reply")


def test_the_metadata_that_botocore_acts_on_is_as_in_botocore(theirs: dict[str, Any]):
    for key, value in OURS["metadata"].items():
        assert theirs["metadata"][key].rstrip("/") == value.rstrip("/") if isinstance(value, str) else True, key
        assert isinstance(value, str) or theirs["metadata"][key] == value, key


def test_every_region_of_every_partition_has_botocores_endpoint():
    loader = Loader()
    ours = EndpointResolver(endpoints(loader.load_data("partitions")), uses_builtin_data=True)
    stock = EndpointResolver(loader.load_data("endpoints"), uses_builtin_data=True)
    regions = [name for part in loader.load_data("endpoints")["partitions"] for name in part["regions"]]
    assert len(regions) > 30
    for region in [*regions, "eu-new-9"]:
        assert ours.get_partition_for_region(region) == stock.get_partition_for_region(region)
        for service in ("ec2", "sts"):
            mine, other = ours.construct_endpoint(service, region), stock.construct_endpoint(service, region)
            assert {key: mine[key] for key in ("hostname", "partition", "dnsSuffix")} == {
                key: other[key] for key in ("hostname", "partition", "dnsSuffix")
            }


FIPS, DUAL = {"AWS_USE_FIPS_ENDPOINT": "true"}, {"AWS_USE_DUALSTACK_ENDPOINT": "true"}


@pytest.mark.parametrize(
    ("region", "variant"),
    [
        ("eu-west-1", {}),
        ("cn-north-1", {}),
        ("us-gov-west-1", FIPS),
        ("eu-west-1", FIPS),
        ("eu-west-1", DUAL),
        ("us-iso-east-1", {}),
    ],
)
def test_a_client_signs_and_asks_where_botocores_own_does(
    region: str, variant: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    for key, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", **variant}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    seen: list[str] = []

    def stop(request: Any, **_: object) -> object:
        seen.append(f"{request.url} {request.headers['Authorization'].decode().split(',')[0]}")
        raise InterruptedError("asked, but not sent")

    for client in (create_client(region, 1, 1, 1), botocore.session.Session().create_client("ec2", region)):
        client.meta.events.register("before-send.ec2", stop)
        with pytest.raises(InterruptedError):
            client.describe_volumes(VolumeIds=["vol-1"])  # type: ignore[attr-defined, unused-ignore]
    assert seen[0] == seen[1]


def test_other_services_keep_botocores_own_model(monkeypatch: pytest.MonkeyPatch):
    from awsha.aws.client import _SmallLoader

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    assert _SmallLoader().load_service_model("sts", "service-2")["operations"]["AssumeRole"]
