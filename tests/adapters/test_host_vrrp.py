"""host.vrrp: hearing the peers' adverts."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awsha.core.errors import AwshaError
from awsha.core.model import Heard
from awsha.host.vrrp import Advert, Listener, Table, parse


def advert(
    version: int = 3, router: int = 51, priority: int = 150, vips: tuple[str, ...] = ("10.0.0.100",), tail: int = 0
) -> bytes:
    body = bytes([version << 4 | 1, router, priority, len(vips), 0, 100, 0, 0])
    return body + b"".join(map(socket.inet_aton, vips)) + b"\0" * tail


def packet(body: bytes, source: str = "10.0.0.11", protocol: int = 112, options: int = 0) -> bytes:
    header = bytearray(20 + options)
    header[0] = 4 << 4 | (5 + options // 4)
    header[2:4] = (len(header) + len(body)).to_bytes(2, "big")
    header[9] = protocol
    header[12:16] = socket.inet_aton(source)
    return bytes(header) + body


@pytest.mark.parametrize(("version", "tail"), [(3, 0), (2, 8), (2, 0)])
def test_both_versions(version, tail):
    heard = parse(packet(advert(version, vips=("10.0.0.100", "10.0.0.101"), tail=tail)), 7.5)
    assert heard == Advert("10.0.0.11", version, 51, 150, ("10.0.0.100", "10.0.0.101"), 7.5)


def test_header_options_and_link_padding():
    assert parse(packet(advert(), options=8) + b"\0" * 14, 0) is not None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        advert()[:7],
        advert()[:-1],
        advert(tail=4),
        advert(version=2, tail=4),
        advert(version=4),
        advert(version=1),
        b"\x32" + advert()[1:],
        advert(router=0),
        advert(tail=8),
    ],
)
def test_what_is_no_advert_is_left_out(body):
    assert parse(packet(body), 0) is None


def test_what_is_no_vrrp_is_left_out():
    assert parse(packet(advert(), protocol=1), 0) is None
    assert parse(b"\x60" + packet(advert())[1:], 0) is None
    assert parse(packet(advert())[:25], 0) is None


@given(st.binary(max_size=120))
def test_nothing_makes_it_fail(data):
    parse(data, 0.0)
    parse(packet(data), 0.0)


def test_the_table_keeps_known_peers_and_tells_news():
    table = Table({"b": "10.0.0.11", "c": "10.0.0.12"})
    first = Advert("10.0.0.11", 3, 51, 150, (), 1.0)
    assert table.note([first, Advert("10.0.0.99", 3, 51, 150, (), 1.0)]) == {51}
    assert table.note([Advert("10.0.0.11", 3, 51, 150, (), 2.0)]) == frozenset()
    assert table.note([Advert("10.0.0.11", 3, 51, 0, (), 3.0)]) == {51}
    assert table.heard(51) == {"b": Heard(3.0, 0, 1.0)}
    assert table.heard(52) == {}
    before = {(51, "10.0.0.11"): Heard(3.0, 0, 1.0)}
    assert Table({"b": "10.0.0.11"}, before).heard(51) == {"b": Heard(3.0, 0, 1.0)}
    assert Table({"c": "10.0.0.12"}, before).heard(51) == {}


@pytest.mark.parametrize(("at", "priority", "since"), [(2.9, 150, 1.0), (4.1, 150, 4.1), (2.9, 0, 2.9)])
def test_a_silence_or_a_resignation_is_a_break(at: float, priority: int, since: float):
    table = Table({"b": "10.0.0.11"}, advert_int={51: 1.0})
    adverts = [
        Advert("10.0.0.11", 3, 51, number, (), when) for when, number in ((1.0, 150), (2.0, priority), (at, 150))
    ]
    if at > 4:
        adverts.pop(1)
    table.note(adverts)
    assert table.heard(51) == {"b": Heard(at, 150, since)}


def test_adverts_are_heard_and_own_ones_are_not(sandbox):
    def inside() -> None:
        for address in ("10.0.0.10/32", "10.0.0.11/32"):
            subprocess.run(["ip", "address", "add", address, "dev", "lo"], check=True)
        listener = Listener(own=["10.0.0.10"])
        assert listener.drain(0.0) == []
        for source, body in (
            ("10.0.0.11", advert()),
            ("10.0.0.10", advert()),
            ("10.0.0.11", b"junk"),
            ("10.0.0.11", advert(2, 52, 0, tail=8)),
        ):
            with socket.socket(socket.AF_INET, socket.SOCK_RAW, 112) as sender:
                sender.bind((source, 0))
                sender.sendto(body, ("10.0.0.10", 0))
        assert select.select([listener], [], [], 5)[0]
        heard = listener.drain(9.0)
        assert [(a.source, a.router_id, a.priority, a.at) for a in heard] == [
            ("10.0.0.11", 51, 150, 9.0),
            ("10.0.0.11", 52, 0, 9.0),
        ]
        assert listener.drain(9.0) == []
        listener.close()

    sandbox(inside)


def test_without_permission_the_error_says_what_to_do(sandbox):
    def inside() -> None:
        os.setuid(65534)
        with pytest.raises(AwshaError) as caught:
            Listener()
        assert "CAP_NET_RAW" in caught.value.hint

    sandbox(inside)


@pytest.mark.parametrize("version", [2, 3])
def test_a_real_keepalived_is_heard_with_its_priority_and_when_it_resigns(sandbox, tmp_path, version):
    if not shutil.which("keepalived"):
        pytest.skip("needs keepalived")

    def inside() -> None:
        peer = subprocess.Popen(["unshare", "--net", "sleep", "60"])
        own = os.readlink("/proc/self/ns/net")  # noqa: PTH115
        while os.readlink(f"/proc/{peer.pid}/ns/net") == own:  # noqa: PTH115
            time.sleep(0.01)
        within = ["nsenter", "-t", str(peer.pid), "-n"]
        for words in (
            ["ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", str(peer.pid)],
            ["ip", "address", "add", "10.0.0.10/24", "dev", "v0"],
            ["ip", "link", "set", "v0", "up"],
            [*within, "ip", "address", "add", "10.0.0.11/24", "dev", "v1"],
            [*within, "ip", "link", "set", "v1", "up"],
        ):
            subprocess.run(words, check=True)
        conf = tmp_path / "keepalived.conf"
        conf.write_text(f"""
            vrrp_instance x {{
                version {version}
                state MASTER
                interface v1
                virtual_router_id 51
                priority 150
                advert_int {1 if version == 2 else 0.1}
                unicast_src_ip 10.0.0.11
                unicast_peer {{
                    10.0.0.10
                }}
                virtual_ipaddress {{
                    10.0.0.100/32 dev v1
                    10.0.0.101/32 dev v1
                }}
            }}""")
        listener = Listener(own=["10.0.0.10"])
        pids = ["-p", str(tmp_path / "k.pid"), "-r", str(tmp_path / "v.pid")]
        keepalived = subprocess.Popen([*within, "keepalived", "-n", "-P", "-f", str(conf), *pids])
        assert select.select([listener], [], [], 15)[0]
        first = listener.drain(1.0)[0]
        assert first == Advert("10.0.0.11", version, 51, 150, ("10.0.0.100", "10.0.0.101"), 1.0)
        keepalived.terminate()
        priorities: list[int] = []
        while 0 not in priorities:
            assert select.select([listener], [], [], 10)[0]
            priorities += [one.priority for one in listener.drain(2.0)]

    sandbox(inside)
