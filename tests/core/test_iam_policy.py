"""The policy that awsha asks for: what it grants, that its probes ask for just that, and how tools are given it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from awsha.agent.grants import scope
from awsha.aws.permissions import ADDRESS, USES, Scope, actions, document, may_fence, partition_of, probes, topics_of
from awsha.aws.policytext import as_cloudformation, as_json, as_terraform
from awsha.config.init import Wish, compose
from awsha.core.errors import AwshaError
from awsha.core.policy import Fence, Group, Node, Notify, Policy
from awsha.lab.iam import Roles, meant, without
from awsha.lab.records import ACCOUNT, Ec2Error

A, B, ENI, VOL = "i-0a", "i-0b", "eni-0a", "vol-01"
SCOPE = Scope((VOL,), (A, B), (ENI, "eni-0b"), True, "eu-west-1", ACCOUNT)
PROBES = probes(A, [B], ENI, [VOL], "10.0.0.0", fence=True)


def statement(sid: str, scope: Scope = SCOPE) -> dict[str, Any]:
    return next(item for item in document(scope)["Statement"] if item["Sid"] == sid)


def refused(policy: dict[str, Any], action: str, params: dict[str, Any]) -> bool:
    try:
        Roles("eu-west-1", lambda: policy).authorize(A, action, params)
    except Ec2Error as error:
        assert error.code == "UnauthorizedOperation"
        return True
    return False


def test_the_actions_granted_are_the_actions_used():
    assert actions(document(SCOPE)) == frozenset(USES)


def test_only_reads_are_granted_on_everything_and_only_in_the_region():
    for item in document(SCOPE)["Statement"]:
        reads = all(action.startswith("ec2:Describe") for action in item["Action"])
        assert (item["Resource"] == ["*"]) == reads
        if reads:
            assert item["Condition"] == {"StringEquals": {"aws:RequestedRegion": "eu-west-1"}}


def test_resources_are_named_one_by_one():
    assert statement("AwshaFence")["Resource"] == [f"arn:aws:ec2:eu-west-1:{ACCOUNT}:instance/{i}" for i in (A, B)]
    assert statement("AwshaAddresses")["Resource"][0] == f"arn:aws:ec2:eu-west-1:{ACCOUNT}:network-interface/{ENI}"
    assert len(statement("AwshaVolumes")["Resource"]) == 3


def test_nothing_is_stopped_where_every_group_force_detaches():
    assert "StopInstances" not in actions(document(replace(SCOPE, fence=False)))
    groups = [Group(str(fence), 1, ("10.0.0.100",), fence=fence) for fence in Fence]
    nodes = (Node("a", "10.0.0.10"), Node("b", "10.0.0.11"))
    assert [may_fence(Policy(nodes, (group,))) for group in groups] == [True, False, True]
    assert may_fence(Policy(nodes, tuple(groups)))


def test_a_pair_without_volumes_gets_nothing_about_volumes():
    granted = actions(document(replace(SCOPE, volumes=())))
    assert not granted & {"AttachVolume", "DetachVolume", "DeleteTags"}
    assert "CreateTags" in granted, "the configuration is published on the instances"


def test_volumes_by_tags_are_granted_by_tags():
    scope = replace(SCOPE, volumes=(), tagged=((("Name", "db"),),))
    item = statement("AwshaTaggedVolume1", scope)
    assert item["Condition"] == {"StringEquals": {"aws:ResourceTag/Name": "db"}}
    assert item["Resource"] == [f"arn:aws:ec2:eu-west-1:{ACCOUNT}:volume/*"]
    assert statement("AwshaVolumesAtNodes", scope)["Action"] == ["ec2:AttachVolume", "ec2:DetachVolume"]


def test_keys_of_encrypted_volumes_are_granted_to_ec2_only():
    item = statement("AwshaUseKeys", replace(SCOPE, keys=("arn:aws:kms:eu-west-1:1:key/k",)))
    assert item["Condition"] == {"Bool": {"kms:GrantIsForAWSResource": "true"}}


def test_publishing_is_granted_on_the_topic_and_only_where_one_is_configured():
    assert not [item for item in document(SCOPE)["Statement"] if "sns:Publish" in item["Action"]]
    topic = f"arn:aws:sns:eu-west-1:{ACCOUNT}:alarms"
    with_topic = replace(SCOPE, topics=(topic,))
    assert statement("AwshaNotify", with_topic)["Resource"] == [topic]
    assert not refused(document(with_topic), "sns:Publish", {"TopicArn": topic})
    roles = Roles("eu-west-1", lambda: document(with_topic))
    for action, arn in (("sns:Publish", topic + "2"), ("sns:DeleteTopic", topic)):
        with pytest.raises(Ec2Error, match="AuthorizationError"):
            roles.authorize(A, action, {"TopicArn": arn})
    policy = Policy((), (), notify=Notify(sns_topic=topic))
    assert (topics_of(policy), topics_of(Policy((), ()))) == ((topic,), ())


REGIONS = ("eu-west-1", "cn-north-1", "us-gov-west-1", "us-iso-east-1", "us-isob-east-1", "eu-isoe-west-1")


@pytest.mark.parametrize("region", [*REGIONS, "us-isof-south-1", "eusc-de-east-1"])
def test_the_partition_of_a_region_is_botocores(region: str):
    import botocore.session

    assert partition_of(region) == botocore.session.Session().get_partition_for_region(region)


# --- the lab reads it as IAM does ------------------------------------------------------------------------------


def test_every_probe_is_allowed_by_the_policy():
    assert not [probe for probe in PROBES if refused(document(SCOPE), probe.action, dict(probe.params))]


def test_probes_cover_every_action_that_changes_something():
    assert {probe.action for probe in PROBES} == {action for action in USES if not action.startswith("Describe")}


def test_no_probe_could_take_effect():
    for probe in PROBES:
        if probe.action in ADDRESS:
            assert probe.params["PrivateIpAddresses"] == ["10.0.0.0"], "an address that EC2 gives to nobody"
            assert not probe.params.get("AllowReassignment")
        else:
            assert probe.params["DryRun"] is True


@pytest.mark.parametrize("action", sorted(USES))
def test_without_an_action_it_is_refused_and_the_others_are_not(action: str):
    policy = without(document(SCOPE), [action])
    assert actions(policy) == frozenset(USES) - {action}
    for probe in PROBES:
        assert refused(policy, probe.action, dict(probe.params)) == (probe.action == action)


CHANGED: dict[str, tuple[str, dict[str, Any]]] = {
    "another volume": ("AttachVolume", {"VolumeId": "vol-99", "InstanceId": A}),
    "another instance": ("AttachVolume", {"VolumeId": VOL, "InstanceId": "i-99"}),
    "a stranger stopped": ("StopInstances", {"InstanceIds": [B, "i-99"]}),
    "another ENI": ("AssignPrivateIpAddresses", {"NetworkInterfaceId": "eni-99"}),
    "another tag": ("CreateTags", {"Resources": [VOL], "Tags": [{"Key": "Name", "Value": "x"}]}),
    "a tag too many": ("CreateTags", {"Resources": [VOL], "Tags": [{"Key": "awsha:releasing"}, {"Key": "Name"}]}),
    "the volume's tag on a node": ("CreateTags", {"Resources": [A], "Tags": [{"Key": "awsha:releasing"}]}),
    "all tags deleted": ("DeleteTags", {"Resources": [VOL]}),
    "terminated": ("TerminateInstances", {"InstanceIds": [B]}),
    "another read": ("DescribeImages", {}),
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_awsha_never_does_is_refused(name: str):
    assert refused(document(SCOPE), *CHANGED[name])


def test_another_region_is_refused():
    roles = Roles("us-east-1", lambda: document(SCOPE))
    with pytest.raises(Ec2Error, match="UnauthorizedOperation"):
        roles.authorize(A, "DescribeVolumes", {})


# --- texts -----------------------------------------------------------------------------------------------------


def test_json_is_the_document():
    assert json.loads(as_json(SCOPE)) == document(SCOPE)


def stack(text: str) -> dict[str, Any]:
    """A template as CloudFormation reads it: Fn::Sub replaces variables where it stands, and nowhere else."""
    yaml = pytest.importorskip("yaml")

    class Loader(yaml.SafeLoader):  # type: ignore[misc, name-defined]
        pass

    def substituted(loader: Any, item: Any) -> str:
        known = {"AWS::Partition": "aws", "AWS::AccountId": ACCOUNT}
        written = str(loader.construct_scalar(item))
        return re.sub(r"\$\{([^}]*)\}", lambda found: known[found[1]], written)

    Loader.add_constructor("!Sub", substituted)
    Loader.add_constructor("!Ref", lambda loader, item: loader.construct_scalar(item))
    template: dict[str, Any] = yaml.load(text, Loader)
    return template


def test_cloudformation_says_the_same_with_the_stacks_account():
    template = stack(as_cloudformation(SCOPE))
    assert template["Resources"]["AwshaPolicy"]["Properties"]["PolicyDocument"] == document(SCOPE)
    assert template["Outputs"]["AwshaPolicyArn"]["Value"] == "AwshaPolicy"


@pytest.mark.parametrize("render", [as_cloudformation, as_terraform])
def test_no_account_number_is_written_where_the_tool_knows_it(render: Callable[[Scope], str]):
    assert ACCOUNT not in render(SCOPE)


Statements = list[tuple[str, list[str], list[str], dict[str, dict[str, list[str]]]]]


def terraform(text: str) -> Statements:
    """The policy in a Terraform file, by HCL's rules for quoted texts (its specification, "Template Expressions")."""
    known = {"data.aws_partition.current.partition": "aws", "data.aws_caller_identity.current.account_id": ACCOUNT}
    piece = re.compile(r"\\u([0-9a-f]{4})|\\U([0-9a-f]{8})|\\([\\\"])|([$%])\4\{|\$\{([^}]*)\}|(%\{)|([^\\])")

    def read(quoted: re.Match[str]) -> str:
        found = ""
        for part in piece.finditer(quoted[1]):
            assert not part[6], "the beginning of a directive"
            code = part[1] or part[2]
            sign = part[4] + "{" if part[4] else known[part[5]] if part[5] is not None else part[3] or part[7]
            found += chr(int(code, 16)) if code else sign
        return found

    def listed(written: str) -> list[str]:
        return [read(found) for found in re.finditer(r'"((?:\\.|[^"\\])*)"', written)]

    statements = []
    for block in text.partition("\n}\n")[0].split("  statement {\n")[1:]:
        parts = {
            name: listed(found)
            for name, found in re.findall(r"^    (\w+) = (\[\n.*?^    \]|[^\n]*)$", block, re.M | re.S)
        }
        conditions: dict[str, dict[str, list[str]]] = {}
        for test, variable, values in re.findall(r"test     = (.*)\n +variable = (.*)\n +values   = (.*)\n", block):
            conditions.setdefault(listed(test)[0], {})[listed(variable)[0]] = listed(values)
        statements.append((parts["sid"][0], parts["actions"], parts["resources"], conditions))
    return statements


def spoken(policy: dict[str, Any]) -> Statements:
    """A policy as `terraform` reads one."""
    return [
        (
            item["Sid"],
            item["Action"],
            item["Resource"],
            {
                test: {key: [value] if isinstance(value, str) else value for key, value in operands.items()}
                for test, operands in item.get("Condition", {}).items()
            },
        )
        for item in policy["Statement"]
    ]


def test_terraform_says_the_same_with_the_providers_account():
    assert terraform(as_terraform(SCOPE)) == spoken(document(SCOPE))


# What a person may call a tag, and each tool reads as something else.
NASTY = (
    "${aws:username}", "$${x}", "$$${x}", "${$}", "${AWS::AccountId}", "${!x}", "${AwshaPolicy}", "$", "${",
    "%{ if x }",
    "%%{x}", "%%%{x}", "$%{x}", "${data.aws_partition.current.partition}",  "*", "a?", "${*}",
    'a"b', "a\\b", "\\u0024{x}", "blüte", "\U0001f600", "{{x}}", "Null", "yes", "~", "",
)  # fmt: skip
READERS: dict[str, Callable[[Scope], Statements]] = {
    "json": lambda scope: spoken(json.loads(as_json(scope))),
    "cloudformation": lambda scope: spoken(
        stack(as_cloudformation(scope))["Resources"]["AwshaPolicy"]["Properties"]["PolicyDocument"]
    ),
    "terraform": lambda scope: terraform(as_terraform(scope)),
}


@pytest.mark.parametrize("form", READERS)
def test_a_tag_is_what_it_is_called_in_every_format(form: str):
    """Through the tool, and through IAM, which reads variables in a value and nothing in a tag's name."""
    for word in NASTY:
        name = word or "x"
        scope = replace(SCOPE, volumes=(), tagged=(((name, word),),))
        statements = READERS[form](scope)
        assert statements == spoken(document(scope))
        (conditions,) = (item[3] for item in statements if item[0] == "AwshaTaggedVolume1")
        ((key, [value]),) = conditions["StringEquals"].items()
        assert (key, meant(value)) == (f"aws:ResourceTag/{name}", word)


@pytest.mark.parametrize(
    ("word", "refuses", "carries"),
    [
        ("{{resolve:ssm:x}}", as_cloudformation, "terraform"),
        ("&{aws:username}", as_terraform, "cloudformation"),
    ],
)
def test_a_tag_that_a_tool_would_replace_is_refused(word: str, refuses: Callable[[Scope], str], carries: str):
    for tags in ((("Name", word),), ((word, "x"),)):
        scope = replace(SCOPE, volumes=(), tagged=(tags,))
        with pytest.raises(AwshaError, match="would replace"):
            refuses(scope)
        for form in ("json", carries):
            assert READERS[form](scope) == spoken(document(scope))


def test_without_a_lookup_what_is_not_named_is_granted_for_the_region_and_that_is_said(tmp_path: Path):
    file = tmp_path / "awsha.toml"
    text = compose(Wish(["a=10.0.0.10", "b=10.0.0.11"], ["10.0.0.100"], [f"vol-{1:017x}:/srv/data"]), "f")
    file.write_text('region = "eu-west-1"\n' + text)
    found = scope(file, lookup=False)
    assert found.scope == Scope((f"vol-{1:017x}",), ("*",), ("*",), True, "eu-west-1")
    assert len(found.notes) == 3
    file.write_text(
        file.read_text()
        .replace('address = "10.0.0.10"', 'address = "10.0.0.10"\ninstance_id = "i-0123456789abcdef0"')
        .replace('address = "10.0.0.11"', 'address = "10.0.0.11"\ninstance_id = "i-0123456789abcdef1"')
    )
    assert scope(file, lookup=False).scope.instances == ("i-0123456789abcdef0", "i-0123456789abcdef1")
