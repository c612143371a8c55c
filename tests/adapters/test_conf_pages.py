"""The pages about what is in conf as readers follow them: Terraform without AWS, the AWS CLI's words in moto."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore import xform_name
from botocore.model import Shape

from tests.adapters.hcl import blocks as hcl_blocks
from tests.adapters.test_cloudformation import FILE, stack
from tests.adapters.test_terraform import MODULE, PROGRAM, needs_program
from tests.tools.pages import ROOT, blocks, shell_lines

pytestmark = pytest.mark.xdist_group("terraform")


def lines(page: str, who: str) -> list[str]:
    """The commands of a page's blocks with a marker."""
    found = [line for block in blocks(ROOT / "docs" / page) if block.who == who for line in shell_lines(block.text)]
    assert found, f"{page} has no block for {who}"
    return found


# --- Terraform --------------------------------------------------------------------------------------------------------


def stand_in(folder: Path) -> Path:
    """The example, with a module in the place of conf/terraform that makes nothing and has the same addresses.

    The providers can't be had here. Resources are terraform_data: `aws_instance.b` is `terraform_data.b`.
    """
    place = folder / "conf/terraform/examples/pair"
    place.mkdir(parents=True)
    text = (MODULE / "examples/pair/main.tf").read_text()
    text = re.sub(r"^(terraform|provider) .*?^\}\n", "", text, flags=re.MULTILINE | re.DOTALL)
    (place / "main.tf").write_text(text)
    shutil.copy(MODULE / "variables.tf", place.parents[1])
    resources = 'resource "terraform_data" "a" {}\nresource "terraform_data" "b" {}\n'
    resources += 'resource "terraform_data" "data" {\n  lifecycle {\n    prevent_destroy = true\n  }\n}\n'
    outputs = [name for block in hcl_blocks(MODULE)["output"] for name in block]
    value = {"node_b": "terraform_data.b.id"}
    resources += "".join(f'output "{n}" {{\n  value = {value.get(n, chr(34) + n + chr(34))}\n}}\n' for n in outputs)
    (place.parents[1] / "main.tf").write_text(resources)
    return place


@needs_program
def test_terraform_does_what_the_page_says(tmp_path: Path):
    place = stand_in(tmp_path)
    commands = lines("terraform.md", "terraform")
    assert commands.pop(0) == f"cd {place.relative_to(tmp_path)}"
    said: dict[str, str] = {}
    for command in commands:
        text = command.replace("URL", "https://example.com/awsha.whl")
        text = text.replace("module.pair.aws_instance.", "module.pair.terraform_data.")
        text = text.replace("module.pair.aws_ebs_volume.", "module.pair.terraform_data.")
        before = nodes(place)
        done = run(place, text)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        said[command] = done.stdout
        if "-replace" in text:
            after = nodes(place)
            assert {name for name in after if after[name] != before[name]} == {"b"}, "one node, and only that"
    assert "vip = " in said["terraform output"]
    assert "Destroy complete" in list(said.values())[-1]


def run(place: Path, command: str) -> subprocess.CompletedProcess[str]:
    _, *words = shlex.split(command)
    if words[0] in ("apply", "destroy"):
        words.insert(1, "-auto-approve")  # the reader says yes
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")} | {"CHECKPOINT_DISABLE": "1"}
    argv = [str(PROGRAM), *words]
    return subprocess.run(argv, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=60)


def nodes(place: Path) -> dict[str, str]:
    """Ids of what stands for the nodes."""
    file = place / "terraform.tfstate"
    made = json.loads(file.read_text())["resources"] if file.exists() else []
    return {item["name"]: item["instances"][0]["attributes"]["id"] for item in made}


# --- the AWS CLI ------------------------------------------------------------------------------------------------------


def call(client: Any, words: list[str]) -> Any:
    """One operation with the flags of the AWS CLI, as botocore's model of it says."""
    operation, *rest = words
    model = client.meta.service_model
    names = {xform_name(name, "-"): name for name in model.operation_names}
    shapes = model.operation_model(names[operation]).input_shape.members
    flags = {f"--{xform_name(name, '-')}": name for name in shapes}
    flags |= {"--notification-endpoint": "Endpoint"}  # the CLI's own name: --endpoint would look like --endpoint-url
    if "revision" in shapes:
        shapes = {**shapes, "s3Location": shapes["revision"].members["s3Location"]}
        flags["--s3-location"] = "s3Location"
    given: dict[str, list[str]] = {}
    for word in rest:
        if word.startswith("--"):
            last = given.setdefault(flags[word], [])
        else:
            last.append(word)
    parameters = {name: parsed(shapes[name], values) for name, values in given.items()}
    if "s3Location" in parameters:  # the CLI's short form of a revision
        parameters["revision"] = {"revisionType": "S3", "s3Location": parameters.pop("s3Location")}
    return getattr(client, operation.replace("-", "_"))(**parameters)


def parsed(shape: Shape, values: list[str]) -> Any:
    """Words of the command line as a value of this shape."""
    if shape.type_name == "list":
        return [parsed(shape.member, [value]) for value in values]
    [value] = values
    if shape.type_name == "structure":
        return dict(part.split("=", 1) for part in value.split(","))
    kinds: dict[str, Callable[[str], Any]] = {"integer": int, "double": float}
    return kinds.get(shape.type_name, str)(value)


def test_subscriber_and_alarm_are_made_as_the_page_says(monkeypatch: pytest.MonkeyPatch):
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    boto3, moto = pytest.importorskip("boto3"), pytest.importorskip("moto")
    with moto.mock_aws():
        clients = {name: boto3.client(name, "eu-west-1") for name in ("sns", "cloudwatch")}
        topic = clients["sns"].create_topic(Name="watcher")["TopicArn"]
        for line in lines("watcher.md", "aws"):
            _, service, *words = shlex.split(line.replace("TOPIC", topic).replace("PAIR", "pair-1"))
            call(clients[service], words)
        [subscriber] = clients["sns"].list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
        [alarm] = clients["cloudwatch"].describe_alarms()["MetricAlarms"]
    assert subscriber["Endpoint"] == "duty@example.com"
    assert (alarm["AlarmActions"], alarm["TreatMissingData"]) == ([topic], "breaching")
    assert (alarm["Namespace"], alarm["MetricName"]) == ("awsha", "Apart")


def test_a_deployment_is_made_as_the_page_says(monkeypatch: pytest.MonkeyPatch):
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    boto3, moto = pytest.importorskip("boto3"), pytest.importorskip("moto")
    words = {"ROLE": "arn:aws:iam::123456789012:role/deploys", "PAIR": "pair-1", "BUCKET": "revisions"}
    with moto.mock_aws():
        client = boto3.client("codedeploy", "eu-west-1")
        for line in lines("codedeploy.md", "aws"):
            filled_in = re.sub("|".join(words), lambda match: words[match[0]], line)
            call(client, shlex.split(filled_in)[2:])
        [deployment] = client.list_deployments()["deployments"]
        group = client.get_deployment_group(applicationName="awsha", deploymentGroupName="pair")["deploymentGroupInfo"]
        made = client.get_deployment(deploymentId=deployment)["deploymentInfo"]
    assert group["deploymentConfigName"] == "CodeDeployDefault.OneAtATime"
    assert group["ec2TagFilters"] == [{"Key": "awsha:pair", "Value": "pair-1", "Type": "KEY_AND_VALUE"}]
    assert made["revision"]["s3Location"] == {"bucket": "revisions", "key": "awsha.zip", "bundleType": "zip"}


def test_a_revision_has_the_appspec_its_scripts_and_one_wheel(tmp_path: Path):
    shutil.copytree(ROOT / "conf/codedeploy", tmp_path / "conf/codedeploy")
    stand_in_for_pip = "#!/bin/sh\nmkdir -p build/revision && : >build/revision/awsha-1-py3-none-any.whl\n"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/pip").write_text(stand_in_for_pip)
    (tmp_path / "bin/pip").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    for line in lines("codedeploy.md", "here"):
        subprocess.run(["sh", "-euc", line], cwd=tmp_path, env=environment, check=True, timeout=60)
    revision = tmp_path / "build/revision"
    assert {item.name for item in revision.iterdir()} == {"appspec.yml", "scripts", "awsha-1-py3-none-any.whl"}
    assert os.access(revision / "scripts/before-install", os.X_OK)


def test_the_stack_has_what_the_page_gives_it():
    [line] = lines("watcher.md", "deploy")
    words = shlex.split(line)
    assert ROOT / words[words.index("--template-file") + 1] == FILE
    given = dict(word.split("=", 1) for word in words[words.index("--parameter-overrides") + 1 :])
    assert stack(**given).condition("HasWatchEmail")
