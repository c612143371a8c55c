"""One address: from the spawn of `awsha notify` to the wire, and beside what else moves an address."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

from awsha.lab.nodeconf import environment
from awsha.lab.settings import ACCESS_KEY_ID, REGION, SECRET_KEY
from tests.bench.bench_lab import AWSHA, BenchError, BenchLab, Ran
from tests.bench.row import Row, compared, times_faster
from tests.bench.takeover import lab_now

BUILD = Path(__file__).parents[2] / "build" / "bench"
OCF_ROOT = BUILD / "resource-agents" / "usr/lib/ocf"
AWS = BUILD / "awscli" / "bin" / "aws"
INSTALL_S = 300.0
# What an administrator writes who has read the API's reference: three questions to metadata, one signed request.
SCRIPT = """\
set -eu
meta=http://169.254.169.254/latest
token=$(curl -sfX PUT $meta/api/token -H 'X-aws-ec2-metadata-token-ttl-seconds: 60')
mac=$(curl -sf $meta/meta-data/mac -H "X-aws-ec2-metadata-token: $token")
eni=$(curl -sf $meta/meta-data/network/interfaces/macs/$mac/interface-id -H "X-aws-ec2-metadata-token: $token")
curl -sf "$AWS_ENDPOINT_URL" --aws-sigv4 "aws:amz:$AWS_REGION:ec2" --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" \\
    -d Action=AssignPrivateIpAddresses -d Version=2016-11-15 -d NetworkInterfaceId=$eni \\
    -d PrivateIpAddress.1=$1 -d AllowReassignment=true
"""


def notify_to_wire(quick: bool) -> list[Row]:
    """Spawn of `awsha notify` in a node until EC2's endpoint has the first request ÷ `python3 -c pass` beside it."""
    took, bare, whole = [], [], []
    with BenchLab(keepalived=False, application=False, volumes=0) as lab:
        for index in range(10 if quick else 60):
            bare.append(lab.run("b", sys.executable, "-c", "pass").good().took)
            ran = lab.run("b", AWSHA, "notify", "master", "data").good()

            def asked(ran: Ran = ran) -> float | None:
                found = lab.requests(ran.began, "b")
                return float(found[0]["at"]) if found else None

            arrived = lab.wait_for(asked, "a request of b arrives", 10)
            if index >= 2:  # the first ones compile and fill caches
                took.append(arrived - ran.began)
                whole.append(ran.took)
        bare = bare[2:]
    milliseconds = [[s * 1e3 for s in series] for series in (_middle(took), _middle(bare))]
    note = f"middle half of {len(took)}; notify itself {sum(_middle(whole)) / len(_middle(whole)) * 1e3:.0f} ms"
    return [compared("notify_to_wire", *milliseconds, 2.0, unit="ms", note=note)]


def _middle(series: list[float]) -> list[float]:
    """The middle half, sorted: what other programs on the machine did to single runs does not count."""
    ordered = sorted(series)
    return ordered[len(ordered) // 4 : -(len(ordered) // 4)]


def vip_vs_awsvip(quick: bool) -> list[Row]:
    """awsha taking one VIP from another interface, beside Debian's awsvip, the AWS command line, and curl."""
    count = 2 if quick else 5
    with BenchLab(keepalived=False, application=False, volumes=0) as lab:
        vip, eni_b = lab.groups[0].vips[0], _eni(lab, "b")
        lab.run("b", AWSHA, "notify", "backup", "data").good()

        def timed(take: Callable[[], float], times: int) -> list[float]:
            series = []
            for _ in range(times):
                _give_to_a(lab, vip)
                series.append(take())
            return series

        def awsha() -> float:
            lab.vips_on_interface("b", [vip], there=True)
            ran = lab.run("b", AWSHA, "notify", "master", "data").good()
            taken = _delivered(lab, vip, "b", ran.began)
            lab.notify("b", "backup")
            return taken - ran.began

        def program(*argv: str, **env: str) -> Callable[[], float]:
            def run() -> float:
                ran = lab.run("b", *argv, **env).good()
                return max(ran.ended, _delivered(lab, vip, "b", ran.began)) - ran.began

            return run

        mine = timed(awsha, 3 + count * 3)[3:]
        rows = []
        script = timed(program("bash", "-c", SCRIPT, "take", vip), 1 + count * 2)[1:]
        rows.append(times_faster("vip_vs_awsvip curl --aws-sigv4", mine, script, 1.0, "bash, 3 metadata reads, 1 call"))
        try:
            install()
        except (BenchError, OSError, subprocess.SubprocessError) as error:
            names = ("aws ec2 alone", "api_delay=0", "awsvip start")
            return rows + [Row(f"vip_vs_awsvip {name}", None, failed=f"not installed: {error}") for name in names]
        alone = timed(
            program(
                str(AWS), "ec2", "assign-private-ip-addresses", "--network-interface-id", eni_b,
                "--private-ip-addresses", vip, "--allow-reassignment", AWS_PAGER="",
            ), 1 + count,
        )[1:]  # fmt: skip
        rows.append(times_faster("vip_vs_awsvip aws ec2 alone", mine, alone, 6, "aws ec2 assign-private-ip-addresses"))
        for delay, name, goal in (("0", "api_delay=0", 12), ("3", "awsvip start", 40)):
            series = timed(_awsvip(lab, vip, delay), 1 + min(count, 3))[1:]
            rows.append(times_faster(f"vip_vs_awsvip {name}", mine, series, goal, f"OCF agent, api_delay={delay}"))
    return rows


def _awsvip(lab: BenchLab, vip: str, delay: str) -> Callable[[], float]:
    """`awsvip start` as Pacemaker would run it."""
    ocf = {
        "OCF_ROOT": str(OCF_ROOT), "OCF_RESOURCE_INSTANCE": "vip", "OCF_RA_VERSION_MAJOR": "1",
        "OCF_RA_VERSION_MINOR": "0", "OCF_RESKEY_secondary_private_ip": vip, "OCF_RESKEY_api_delay": delay,
        "OCF_RESKEY_awscli": str(AWS), "HA_LOGFACILITY": "none", "HA_debug": "0", "AWS_PAGER": "",
        "AWS_SHARED_CREDENTIALS_FILE": str(BUILD / "credentials"), "AWS_CONFIG_FILE": str(BUILD / "config"),
    }  # fmt: skip

    def start() -> float:
        ran = lab.run("b", str(OCF_ROOT / "resource.d/heartbeat/awsvip"), "start", **ocf).good()
        _delivered(lab, vip, "b", ran.began)
        return ran.took

    return start


def _eni(lab: BenchLab, node: str) -> str:
    from awsha.lab.settings import node_specs

    return next(spec.eni_id for spec in node_specs(lab.lab, lab.shape) if spec.name == node)


def _give_to_a(lab: BenchLab, vip: str) -> None:
    """The address is on a's interface, as if a had been master; by a client of this machine."""
    import boto3

    port = lab.ask("endpoint")["port"]
    client = boto3.client(
        "ec2", region_name=REGION, endpoint_url=environment(f"http://127.0.0.1:{port}")["AWS_ENDPOINT_URL"],
        aws_access_key_id=ACCESS_KEY_ID, aws_secret_access_key=SECRET_KEY,
    )  # fmt: skip
    began = lab_now()
    client.assign_private_ip_addresses(
        NetworkInterfaceId=_eni(lab, "a"), PrivateIpAddresses=[vip], AllowReassignment=True
    )
    if lab.ask("status")["ec2"]["delivered_to"][vip] != "a":
        _delivered(lab, vip, "a", began)


def _delivered(lab: BenchLab, vip: str, node: str, since: float) -> float:
    """When the VPC delivered the address to this node."""

    def moved() -> float | None:
        events = lab.events(since)["events"]
        return next(
            (e["at"] for e in events if e["kind"] == "AddressMoved" and e["node"] == node and vip in e["text"]), None
        )

    at: float = lab.wait_for(moved, f"{vip} is delivered to {node}", 15)
    return at


def install() -> None:
    """Debian's resource-agents, unpacked, and awscli from PyPI, in build/bench; nothing else of the machine changes."""
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "config").write_text(f"[default]\nregion = {REGION}\n")
    (BUILD / "credentials").write_text(
        f"[default]\naws_access_key_id = {ACCESS_KEY_ID}\naws_secret_access_key = {SECRET_KEY}\n"
    )
    if not (OCF_ROOT / "resource.d/heartbeat/awsvip").exists():
        _run("apt-get", "download", "-q", "resource-agents", cwd=BUILD)
        package = max(BUILD.glob("resource-agents_*.deb"))
        _run("dpkg", "-x", str(package), str(BUILD / "resource-agents"))
    if not AWS.exists():
        venv.create(BUILD / "awscli", with_pip=True)
        _run(str(AWS.with_name("python")), "-m", "pip", "install", "-q", "awscli")


def _run(*argv: str, cwd: Path | None = None) -> None:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(argv[:3])}: {(done.stderr or done.stdout).strip()[-200:]}")
