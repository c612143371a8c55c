"""The parts of conf that have one source elsewhere: `python -m tests.tools.copies` writes them, a test compares.

The watcher in the CloudFormation template is conf/lambda/watcher.py. In conf/terraform first-boot.sh.tftpl is the user
data of that template, and policy.tf is what `awsha iam-policy` prints for this pair with `--format terraform`.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

from awsha.aws.permissions import Scope
from awsha.aws.policytext import as_terraform
from tests.adapters import cfn

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "conf/cloudformation/awsha-pair.yaml"
MODULE = ROOT / "conf/terraform"
WATCHER = ROOT / "conf/lambda/watcher.py"
SCOPE = Scope(
    volumes=("${aws_ebs_volume.data.id}",),
    instances=("${aws_instance.a.id}", "${aws_instance.b.id}"),
    interfaces=("${aws_network_interface.a.id}", "${aws_network_interface.b.id}"),
    fence=True,
    region="${data.aws_region.current.region}",
    keys=("${var.kms_key_arn}",),
)
# Statements that some variables leave out, as the template's conditions do.
SOMETIMES = {
    "AwshaFence": 'var.fence != "force-detach"',
    "AwshaUseKeys": 'var.kms_key_arn != ""',
    "AwshaSeeKeys": 'var.kms_key_arn != ""',
}
NOTE = "# Written by `python -m tests.tools.copies`; for a running pair `awsha iam-policy --format terraform` does.\n"


def template() -> str:
    """The CloudFormation template with the watcher's code in it. Raises SystemExit where it has no place for that."""
    head, mark, rest = TEMPLATE.read_text(encoding="utf-8").partition("        ZipFile: |\n")
    if not mark:
        raise SystemExit(f"{TEMPLATE} has no ZipFile")
    behind = re.search(r"^ {0,9}\S", rest, re.MULTILINE)
    code = textwrap.indent(WATCHER.read_text(encoding="utf-8"), " " * 10)
    return head + mark + code + (rest[behind.start() :] if behind else "")


def first_boot() -> str:
    """The user data, with variables of Terraform for those of CloudFormation. Raises SystemExit where it can't tell."""
    data = cfn.load(TEMPLATE)["Resources"]["FirstBoot"]["Properties"]["LaunchTemplateData"]["UserData"]
    text: str = data["Fn::Base64"]["Fn::Sub"][0]
    text = text.replace("CloudFormation fills in this block", "Terraform fills in this block")
    lines = []
    for line in text.replace("%{", "%%{").splitlines():
        filled_in = re.fullmatch(r"([A-Z_]+)='[^']*\$\{[^']*'", line)
        if filled_in is None and re.search(r"\$\{(?!!)", line):
            raise SystemExit(
                f"in the template's user data: only NAME='…' may have a variable of CloudFormation: {line}"
            )
        lines.append(f"{filled_in[1]}='${{{filled_in[1].lower()}}}'" if filled_in else line.replace("${!", "$${"))
    return "\n".join(lines) + "\n"


def policy() -> str:
    """The policy, with the statements that are not always there made dynamic."""
    text = NOTE + as_terraform(SCOPE) + "\n"
    for sid, condition in SOMETIMES.items():
        text, found = re.subn(
            rf'^  statement \{{\n(    sid += "{sid}"\n.*?)^  \}}\n',
            lambda match, condition=condition: _dynamic(condition, match[1]),
            text,
            flags=re.MULTILINE | re.DOTALL,
        )
        if found != 1:
            raise SystemExit(f"{found} statements {sid} in what awsha iam-policy prints")
    return text


def _dynamic(condition: str, body: str) -> str:
    inner = "".join(f"  {line}\n" for line in body.splitlines())
    return f'  dynamic "statement" {{\n    for_each = {condition} ? [1] : []\n    content {{\n{inner}    }}\n  }}\n'


PARTS = {TEMPLATE: template, MODULE / "first-boot.sh.tftpl": first_boot, MODULE / "policy.tf": policy}


def main() -> int:
    """Write the parts."""
    for file, part in PARTS.items():
        file.write_text(part(), encoding="utf-8")
        sys.stdout.write(f"wrote {file}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
