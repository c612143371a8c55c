"""conf/terraform: held against the CloudFormation template, resource by resource; and what Terraform itself says."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from awsha.aws.permissions import Scope, document
from tests.adapters import cfn
from tests.adapters.hcl import Module, blocks
from tests.adapters.test_cloudformation import GIVEN, KEY, STACKS, TEMPLATE, WHEEL, script, stack
from tests.tools import copies

pytestmark = pytest.mark.xdist_group("terraform")  # the module is read once
MODULE = copies.MODULE
WATCHED = {"Watch": "yes", "WatchEmail": "ops@example.com"}
CASES: dict[str, dict[str, Any]] = {**STACKS, "watched": WATCHED, "watched, without mail": {"Watch": "yes"}}
# The template's resources and the module's. Rules of the security group are compared by themselves.
SAME = {
    "Vpc": "aws_vpc.pair",
    "Subnet": "aws_subnet.nodes",
    "Gateway": "aws_internet_gateway.pair",
    "GatewayAttachment": "aws_internet_gateway_attachment.pair",
    "Routes": "aws_route_table.pair",
    "DefaultRoute": "aws_route.default",
    "SubnetRoutes": "aws_route_table_association.nodes",
    "NodeSecurityGroup": "aws_security_group.nodes",
    "NodeRole": "aws_iam_role.nodes",
    "NodeProfile": "aws_iam_instance_profile.nodes",
    "NodePolicy": "aws_iam_policy.awsha",
    "Apart": "aws_placement_group.apart",
    "InterfaceA": "aws_network_interface.a",
    "InterfaceB": "aws_network_interface.b",
    "PublicAddressA": "aws_eip.a",
    "PublicAddressB": "aws_eip.b",
    "PublicA": "aws_eip_association.a",
    "PublicB": "aws_eip_association.b",
    "NodeA": "aws_instance.a",
    "NodeB": "aws_instance.b",
    "DataVolume": "aws_ebs_volume.data",
    "FirstBoot": "aws_launch_template.first_boot",
    "WatcherTopic": "aws_sns_topic.watcher",
    "WatcherMail": "aws_sns_topic_subscription.watcher",
    "WatcherState": "aws_ssm_parameter.watcher",
    "WatcherLog": "aws_cloudwatch_log_group.watcher",
    "WatcherRole": "aws_iam_role.watcher",
    "Watcher": "aws_lambda_function.watcher",
    "WatcherEvents": "aws_cloudwatch_event_rule.watcher",
    "WatcherInvoke": "aws_lambda_permission.watcher",
}
ONLY_TEMPLATE = {"Ready", "ReadyHandle"}  # Terraform has nothing that waits for the first boot
# Parts of a resource of the template that are resources of their own in Terraform, and the pair's id.
ONLY_MODULE = {
    "aws_iam_role_policy_attachment.nodes",
    "aws_iam_role_policy.watcher",
    "aws_cloudwatch_event_target.watcher",
    "terraform_data.pair",
}
# Names that Terraform must make and CloudFormation makes by itself, and what Terraform needs besides.
NAMES = {"name_prefix", "name", "function_name", "filename", "source_code_hash"}
OTHER_WORDS = {
    "ami": "ImageId",
    "placement_group": "PlacementGroupName",
    "type": "VolumeType",
    "private_ips": "PrivateIpAddress",
    "security_groups": "GroupSet",
    "primary_network_interface": "NetworkInterfaces",
    "assume_role_policy": "AssumeRolePolicyDocument",
    "policy": "PolicyDocument",
    "retention_in_days": "RetentionInDays",
    "topic_arn": "TopicArn",
}


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def both(parameters: dict[str, Any]) -> tuple[cfn.Stack, Module]:
    """Template and module with the same parameters, and with the same ids of what they make."""
    made = stack(**parameters)
    made.ids["ReadyHandle"] = "file:///dev/null"
    made.attributes["WatcherLog", "Arn"] = "log-group:*"
    variables = {snake(name): value for name, value in {"AwshaPackage": WHEEL, **parameters}.items()}
    if "watch" in variables:
        variables["watch"] = variables["watch"] == "yes"
    own = "arn:aws:{}:eu-west-1:123456789012:{}"
    known: dict[tuple[str, str], Any] = {
        ("terraform_data.pair", "id"): cfn.STACK_ID.split("/")[2],
        ("data.aws_region.current", "region"): "eu-west-1",
        ("data.aws_partition.current", "partition"): "aws",
        ("data.aws_partition.current", "dns_suffix"): "amazonaws.com",
        ("data.aws_caller_identity.current", "account_id"): cfn.PSEUDO["AWS::AccountId"],
        ("data.aws_availability_zones.all", "names"): cfn.ZONES,
        ("data.aws_subnet.given", "availability_zone"): "z",
        ("aws_launch_template.first_boot", "latest_version"): "LatestVersionNumber-of-FirstBoot",
        ("aws_cloudwatch_log_group.watcher", "arn"): "log-group",
        ("aws_sns_topic.watcher", "arn"): made.ids["WatcherTopic"],
        ("aws_ebs_volume.data", "arn"): own.format("ec2", f"volume/{made.ids['DataVolume']}"),
        ("aws_ssm_parameter.watcher", "arn"): own.format("ssm", f"parameter/{made.ids['WatcherState']}"),
    }
    for logical, address in SAME.items():
        for attribute in ("id", "name", "function_name"):
            known[address, attribute] = made.ids[logical]
        known.setdefault((address, "arn"), f"Arn-of-{logical}")
    for letter in "ab":
        face = made.attributes[f"Interface{letter.upper()}", "PrimaryPrivateIpAddress"]
        known[f"aws_network_interface.{letter}", "private_ip"] = face
        known[f"aws_eip.{letter}", "allocation_id"] = f"AllocationId-of-PublicAddress{letter.upper()}"
        known[f"aws_eip.{letter}", "public_ip"] = made.ids[f"PublicAddress{letter.upper()}"]
        known[f"data.aws_ssm_parameter.image_{letter}", "insecure_value"] = made.parameters[f"Image{letter.upper()}"]
    return made, Module(MODULE, variables, known)


@pytest.fixture(scope="module", params=CASES)
def pair(request: pytest.FixtureRequest) -> tuple[cfn.Stack, Module]:
    return both(CASES[request.param])


def is_rule(name: str) -> bool:
    return "gress_rule." in name or name in ("VrrpIn", "VrrpOut", "IcmpIn", "IcmpOut", "ClientsIn", "AdminsIn")


def as_template(module: Module, address: str) -> dict[str, Any]:
    """A resource of the module in the words of CloudFormation."""
    kind, found = address.partition(".")[0], {}
    for key, value in module.resource(address).items():
        if key in NAMES:
            continue
        name = OTHER_WORDS.get(key, camel(key))
        if kind == "aws_security_group" and key == "description":
            name = "GroupDescription"
        if kind == "aws_ssm_parameter" and key == "type":
            name = "Type"
        found[name] = value
    return translated(module, kind, found)


def translated(module: Module, kind: str, found: dict[str, Any]) -> dict[str, Any]:
    """What Terraform writes in another form."""
    if "Tags" in found:
        found["Tags"] = [{"Key": key, "Value": value} for key, value in found["Tags"].items()]
    for key in ("AssumeRolePolicyDocument", "EventPattern"):
        if key in found:
            found[key] = json.loads(found[key])
    if kind == "aws_network_interface" and "PrivateIpAddress" in found:
        [found["PrivateIpAddress"]] = found["PrivateIpAddress"]
    if kind == "aws_iam_instance_profile":
        found = {"Roles": [found["Role"]]}
    if kind == "aws_iam_policy":
        found["PolicyDocument"] = policy_document(module)
        found["Roles"] = [module.resource("aws_iam_role_policy_attachment.nodes")["role"]]
    if kind == "aws_instance":
        [face], [launch] = found["NetworkInterfaces"], found["LaunchTemplate"]
        found["NetworkInterfaces"] = [{"DeviceIndex": "0", "NetworkInterfaceId": face["network_interface_id"]}]
        found["LaunchTemplate"] = {"LaunchTemplateId": launch["id"], "Version": launch["version"]}
    if kind == "aws_launch_template":
        [options] = found["MetadataOptions"]
        text = base64.b64decode(found["UserData"]).decode()
        found = {"MetadataOptions": {camel(key): value for key, value in options.items()}, "UserData": text}
        found = {"LaunchTemplateData": found}
    if kind.startswith("aws_") and module.variables["watch"]:
        found = translated_watcher(module, kind, found)
    return found


def translated_watcher(module: Module, kind: str, found: dict[str, Any]) -> dict[str, Any]:
    """The same for the watcher."""
    if kind == "aws_iam_role" and "Watcher" in found["Description"]:
        inline = module.resource("aws_iam_role_policy.watcher")
        assert inline["role"] == module.known["aws_iam_role.watcher", "id"]
        found["Policies"] = [{"PolicyName": inline["name"], "PolicyDocument": json.loads(inline["policy"])}]
    if kind == "aws_lambda_function":
        archive = module.resource("data.archive_file.watcher")
        assert found["Handler"] == f"{Path(archive['source_file']).stem}.handler"
        [logging], [environment] = found["LoggingConfig"], found["Environment"]
        assert logging.pop("log_format") == "Text", "CloudFormation's default"
        found["LoggingConfig"] = {"LogGroup": logging["log_group"]}
        found["Environment"] = {"Variables": environment["variables"]}
        found["Handler"] = "index.handler"  # the name that CloudFormation gives to code in a template
        found["Code"] = {"ZipFile": Path(archive["source_file"]).read_text()}
    if kind == "aws_cloudwatch_event_rule":
        target = module.resource("aws_cloudwatch_event_target.watcher")
        assert target["rule"] == module.known["aws_cloudwatch_event_rule.watcher", "name"]
        found["Targets"] = [{"Id": target["target_id"], "Arn": target["arn"]}]
    if kind == "aws_lambda_permission":
        found["FunctionName"] = module.resource("aws_lambda_permission.watcher")["function_name"]
    return found


def policy_document(module: Module) -> dict[str, Any]:
    """What aws_iam_policy_document makes of the module's."""
    made = module.resource("data.aws_iam_policy_document.awsha")
    assert module.resource("aws_iam_policy.awsha")["policy"] == "json-of-data.aws_iam_policy_document.awsha"
    return {"Version": "2012-10-17", "Statement": [statement(item) for item in made["statement"]]}


def statement(item: dict[str, Any]) -> dict[str, Any]:
    conditions: dict[str, dict[str, Any]] = {}
    for one in item.get("condition", []):
        values = one["values"] if one["test"].startswith("ForAllValues") else one["values"][0]
        conditions.setdefault(one["test"], {})[one["variable"]] = values
    found = {"Sid": item["sid"], "Effect": "Allow", "Action": item["actions"], "Resource": item["resources"]}
    return found | ({"Condition": conditions} if conditions else {})


def test_both_make_the_same_resources(pair: tuple[cfn.Stack, Module]):
    made, module = pair
    stands = {name for name in made.resources if not is_rule(name)} - ONLY_TEMPLATE
    here = {a for a in module.written if not a.startswith("data.") and module.made(a) and not is_rule(a)} - ONLY_MODULE
    assert {SAME[name] for name in stands} == here


def test_each_resource_is_what_the_template_says(pair: tuple[cfn.Stack, Module]):
    made, module = pair
    for logical, address in SAME.items():
        if logical not in made.resources:
            continue
        expected = dict(made.properties(logical))
        expected.pop("SecurityGroupEgress", None)
        if logical == "FirstBoot":
            text = script(made).replace("CloudFormation fills in this block", "Terraform fills in this block")
            expected["LaunchTemplateData"] = {**expected["LaunchTemplateData"], "UserData": text}
        assert as_template(module, address) == expected, logical


def rules(made: cfn.Stack, module: Module) -> tuple[list[Any], list[Any]]:
    """Rules of the security group: way, protocol, ports, network or group. The template's, the module's."""
    keys = ("IpProtocol", "FromPort", "ToPort", "CidrIp", "Description")
    stands, here = [], []
    for way, peer in (("Ingress", "SourceSecurityGroupId"), ("Egress", "DestinationSecurityGroupId")):
        own = made.of_type(f"EC2::SecurityGroup{way}").values()
        assert {rule["GroupId"] for rule in own} <= {made.ids["NodeSecurityGroup"]}
        for rule in (*made.properties("NodeSecurityGroup").get(f"SecurityGroup{way}", []), *own):
            stands.append((way, *(rule.get(key) for key in keys), rule.get(peer)))
        kind = f"aws_vpc_security_group_{way.lower()}_rule."
        for address in (a for a in module.written if a.startswith(kind) and module.made(a)):
            rule = module.resource(address)
            assert rule["security_group_id"] == made.ids["NodeSecurityGroup"]
            words = ("ip_protocol", "from_port", "to_port", "cidr_ipv4", "description", "referenced_security_group_id")
            here.append((way, *(rule.get(word) for word in words)))
    return sorted(stands, key=str), sorted(here, key=str)


def test_the_same_is_open_both_ways(pair: tuple[cfn.Stack, Module]):
    stands, here = rules(*pair)
    assert here == stands
    assert {rule[:2] for rule in here if rule[-1]} == {(w, p) for w in ("Ingress", "Egress") for p in ("112", "icmp")}
    group = pair[1].written["aws_security_group.nodes"]
    assert not group.keys() & {"ingress", "egress"}, "rules in the group and beside it would fight"


def test_the_outputs_are_the_template_s(pair: tuple[cfn.Stack, Module]):
    made, module = pair
    expected = {
        snake(name): made.resolve(item["Value"]) if made.condition(item["Condition"]) else None
        for name, item in TEMPLATE["Outputs"].items()
        if "Condition" in item
    }
    expected |= {snake(n): made.resolve(o["Value"]) for n, o in TEMPLATE["Outputs"].items() if "Condition" not in o}
    assert module.outputs() == expected


@pytest.mark.parametrize("fence", TEMPLATE["Parameters"]["Fence"]["AllowedValues"])
@pytest.mark.parametrize("key", ["", KEY])
def test_the_policy_is_what_awsha_iam_policy_prints_for_this_pair(fence: str, key: str):
    made, module = both({"Fence": fence, "KmsKeyArn": key})
    scope = Scope(
        volumes=(made.ids["DataVolume"],),
        instances=(made.ids["NodeA"], made.ids["NodeB"]),
        interfaces=(made.ids["InterfaceA"], made.ids["InterfaceB"]),
        fence=fence != "force-detach",
        region="eu-west-1",
        account=cfn.PSEUDO["AWS::AccountId"],
        keys=(key,) if key else (),
    )
    assert policy_document(module) == document(scope)


@pytest.mark.parametrize("file", copies.PARTS, ids=lambda file: file.name)
def test_what_has_its_source_elsewhere_is_its_source_s(file: Path):
    assert file.read_text() == copies.PARTS[file](), "make it again: python -m tests.tools.copies"


# --- what Terraform would do later ------------------------------------------------------------------------------------


def ignored(module: Module, address: str) -> set[str]:
    [life] = module.written[address]["lifecycle"]
    return {name.removeprefix("${").removesuffix("}") for name in life["ignore_changes"]}


def test_the_data_outlives_everything():
    _, module = both({})
    [life] = module.written["aws_ebs_volume.data"]["lifecycle"]
    assert life["prevent_destroy"] in (True, "true")
    kinds = {address.split(".")[0] for address in module.written}
    assert "aws_volume_attachment" not in kinds, "the attachment is awsha's"
    for name in ("aws_instance.a", "aws_instance.b", "aws_launch_template.first_boot"):
        assert not module.written[name].keys() & {"ebs_block_device", "block_device_mappings"}
    # A node that is replaced must not make the volume's zone unknown: that would replace the volume.
    assert "aws_instance" not in json.dumps(module.written["aws_ebs_volume.data"]["availability_zone"])
    assert "aws_instance" not in json.dumps(module.locals["zone"])


def test_an_apply_takes_nothing_back_that_awsha_did():
    """awsha moves the VIP and writes tags; to Terraform that is drift, unless it is told."""
    _, module = both({})
    for letter in "ab":
        assert "private_ips" in ignored(module, f"aws_network_interface.{letter}")
        assert 'tags["awsha:config"]' in ignored(module, f"aws_instance.{letter}")
    assert 'tags["awsha:releasing"]' in ignored(module, "aws_ebs_volume.data")
    assert "value" in ignored(module, "aws_ssm_parameter.watcher")


def test_no_apply_takes_both_nodes_at_once():
    _, module = both({})
    for letter in "ab":
        assert ignored(module, f"aws_instance.{letter}") >= {"ami", "instance_type", "launch_template", "key_name"}


# --- variables --------------------------------------------------------------------------------------------------------


def test_the_variables_are_the_template_s_parameters():
    declared = {name: item for block in blocks(MODULE)["variable"] for name, item in block.items()}
    assert set(declared) == {"name", *map(snake, TEMPLATE["Parameters"])}
    _, module = both({})
    for name, parameter in TEMPLATE["Parameters"].items():
        item = declared[snake(name)]
        default = {"no": False}.get(parameter.get("Default"), parameter.get("Default"))
        assert module.value(item.get("default")) == default, name
        assert item["type"] == {"Number": "number"}.get(parameter["Type"], "bool" if name == "Watch" else "string")
        rules = " ".join(rule["condition"] for rule in item.get("validation", []))
        if "AllowedPattern" in parameter:
            pattern = parameter["AllowedPattern"].replace("{1,2000}", "+")  # RE2 counts to 1000
            assert json.dumps(pattern) in rules, name
        bounds = [parameter[key] for key in ("MinValue", "MaxValue") if key in parameter]
        assert all(re.search(rf"= {bound}\b", rules) for bound in bounds), name
        if name != "Watch":
            assert all(f'"{word}"' in rules for word in parameter.get("AllowedValues", [])), name


BAD: dict[str, Any] = {
    "name": "1; reboot",
    "awsha_package": "https://example.com/awsha.whl'; reboot; '",
    "vip": "10.51.0.100/24",
    "mount_point": "srv/data",
    "router_id": 256,
    "volume_size": 1.5,
    "metadata_hop_limit": 64,
    "fence": "reboot",
    "file_system": "zfs",
    "subnet_id": "subnet-1",
    "watch_email": "nobody",
    "address_a": "10.51.0.256",
    "address_b": "999.51.0.11",
    "network_cidr": "10.51.256.0/24",
    "client_cidr": "10.0.0.0/33",
    "admin_cidr": "10.0.0.0/99",
}
NOT_TOGETHER: list[tuple[dict[str, Any], str]] = [
    ({"VpcId": GIVEN["VpcId"], **{k: GIVEN[k] for k in ("Vip", "AddressA", "AddressB")}}, "give both, or none"),
    ({"SubnetId": GIVEN["SubnetId"]}, "give both, or none"),
    ({**GIVEN, "Vip": "10.51.0.100"}, "Choose vip"),
    ({**GIVEN, "AddressB": "10.51.0.11"}, "Choose vip"),
    ({"Vip": "10.51.0.10"}, "three addresses"),
    ({**GIVEN, "AddressB": GIVEN["AddressA"]}, "three addresses"),
    ({"Vip": "10.52.0.100"}, "vip: a free address of network_cidr"),
    ({"Vip": "10.51.0.3"}, "vip: a free address of network_cidr"),
    ({"NetworkCidr": "10.51.0.0/26"}, "vip: a free address of network_cidr"),
]


def test_a_value_that_cannot_be_is_refused_and_every_other_is_not():
    _, module = both({})
    assert module.refused() == []
    for name, value in BAD.items():
        module = Module(MODULE, {"awsha_package": WHEEL, name: value}, {})
        assert [text.split(":")[0] for text in module.refused() if "give both" not in text] == [name]


@pytest.mark.parametrize(("parameters", "said"), NOT_TOGETHER)
def test_values_that_do_not_fit_together_are_refused(parameters: dict[str, Any], said: str):
    module = Module(MODULE, {"awsha_package": WHEEL, **{snake(n): v for n, v in parameters.items()}}, {})
    assert any(said in text for text in module.refused())


@pytest.mark.parametrize(("address", "key", "longest"), [
    ("aws_iam_role.nodes", "name_prefix", 38),
    ("aws_iam_instance_profile.nodes", "name_prefix", 102),
    ("aws_iam_role.watcher", "name_prefix", 38),
    ("aws_cloudwatch_event_rule.watcher", "name_prefix", 38),
    ("aws_lambda_function.watcher", "function_name", 64),
    ("aws_launch_template.first_boot", "name_prefix", 99),
])  # fmt: skip
def test_what_is_called_after_the_longest_name_is_not_too_long(address: str, key: str, longest: int):
    variables = {"awsha_package": WHEEL, "name": "n" * 61, "watch": True}
    module = Module(MODULE, variables, {("terraform_data.pair", "id"): cfn.STACK_ID.split("/")[2]})
    name = module.resource(address)[key]
    assert name.startswith("nn")
    assert len(name) <= longest, "AWS would refuse it, after everything else is made"


def test_the_example_gives_what_the_module_takes_and_shows_what_it_has():
    example = blocks(MODULE / "examples/pair")
    [module] = [item["pair"] for item in example["module"]]
    assert (MODULE / "examples/pair" / module["source"].strip('"')).resolve() == MODULE
    variables = {name: item for block in blocks(MODULE)["variable"] for name, item in block.items()}
    assert set(module) - {"source"} <= set(variables)
    assert {name for name, item in variables.items() if "default" not in item} <= set(module)
    shown = set(re.findall(r"module\.pair\.(\w+)", json.dumps(example["output"])))
    assert shown <= {name for block in blocks(MODULE)["output"] for name in block}
    assert blocks(MODULE)["terraform"][0]["required_version"] == example["terraform"][0]["required_version"]


# --- the program itself -----------------------------------------------------------------------------------------------

PROGRAM = shutil.which("terraform") or shutil.which("tofu")
needs_program = pytest.mark.skipif(PROGRAM is None, reason="neither terraform nor tofu is installed")


def terraform(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")} | {"CHECKPOINT_DISABLE": "1"}
    argv = [str(PROGRAM), *words]
    return subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60)


@needs_program
def test_the_files_are_formatted():
    done = terraform(MODULE, "fmt", "-check", "-diff", "-recursive")
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


@needs_program
def test_terraform_itself_accepts_the_module():
    if not (MODULE / ".terraform").is_dir():
        pytest.skip("the providers are not here: terraform -chdir=conf/terraform init -backend=false")
    done = terraform(MODULE, "validate", "-no-color")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_program
def test_terraform_itself_refuses_what_cannot_be_and_fills_in_the_first_boot(tmp_path: Path):
    """What needs no provider: variables, preconditions, and the template of the user data."""
    for name in ("variables.tf", "pair.tf", "first-boot.sh.tftpl"):
        shutil.copy(MODULE / name, tmp_path)
    _, module = both({})
    fill = module.locals["first_boot"].removeprefix("${").removesuffix("}")
    fill = re.sub(r"(?:data\.)?aws_\w+\.[\w.]+|local\.pair", '"x"', fill)
    (tmp_path / "output.tf").write_text(f'output "boot" {{\n  value = {fill}\n}}\n')
    assert terraform(tmp_path, "init", "-backend=false", "-no-color").returncode == 0
    good = terraform(tmp_path, "apply", "-auto-approve", "-no-color", f"-var=awsha_package={WHEEL}")
    assert good.returncode == 0, good.stdout + good.stderr
    text = json.loads((tmp_path / "terraform.tfstate").read_text())["outputs"]["boot"]["value"]
    plain = Module(MODULE, {"awsha_package": WHEEL}, dict.fromkeys(module.known, "x"))
    expected = base64.b64decode(plain.resource("aws_launch_template.first_boot")["user_data"]).decode()
    assert text == expected.replace("PAIR='pair-x'", "PAIR='x'")
    bad = terraform(tmp_path, "plan", "-no-color", *(f"-var={name}={value}" for name, value in BAD.items()))
    assert bad.returncode == 1
    assert all(f"{name}:" in bad.stderr for name in BAD), bad.stderr
    for parameters, said in NOT_TOGETHER:
        given = [f"-var={snake(name)}={value}" for name, value in parameters.items()]
        bad = terraform(tmp_path, "plan", "-no-color", f"-var=awsha_package={WHEEL}", *given)
        assert (bad.returncode, said in " ".join(bad.stderr.split())) == (1, True), f"{parameters}\n{bad.stderr}"
