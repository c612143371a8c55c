"""What a single value may be. Each function returns the value or raises InvalidValueError; none looks at another."""

from __future__ import annotations

import ipaddress
import math
import posixpath
import re
from collections.abc import Callable
from typing import Any

from awsha.config.problems import InvalidValueError, shown

Hook = Callable[[Any, Any], Any]  # as cattrs calls it: value, wanted type

# A file system mounted on or below one of these would hide what the host itself runs from.
SYSTEM_TREES = (
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr/bin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/sbin",
    "/usr/share",
    "/var/lib/awsha",
    "/var/lib/dpkg",
    "/var/lib/rpm",
    "/var/lib/systemd",
    "/var/run",
)
# These themselves must stay; a directory below them is where data belongs.
SYSTEM_DIRECTORIES = (
    "/",
    "/root",
    "/tmp",  # noqa: S108  a name that is refused, not one that is used
    "/usr",
    "/usr/local",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/lock",
    "/var/log",
    "/var/spool",
    "/var/tmp",  # noqa: S108
)
REFUSED_OPTIONS = ("ro", "remount", "bind", "rbind", "move")
MAX_VIPS = 49  # an ENI holds at most 50 IPv4 addresses, the primary included (EC2 user guide, "IP addresses per ENI")
MAX_SECONDS = 86400.0
UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,240}\.(service|target|socket|timer|path|mount)")


def kind(value: object) -> str:
    """What TOML calls the type of a parsed value, with its article."""
    names: dict[type, str] = {
        str: "a string",
        bool: "a boolean",
        int: "an integer",
        float: "a float",
        list: "an array",
        dict: "a table",
    }
    return names.get(type(value), "a date or time")


def text(value: object, _: object = None) -> str:
    """A string without control characters."""
    if not isinstance(value, str):
        quoted = f'"{value}"' if isinstance(value, int | float) and not isinstance(value, bool) else '"…"'
        raise InvalidValueError(f"is {kind(value)}, not a string", f"put it in quotes: {quoted}")
    if any(not c.isprintable() for c in value):
        raise InvalidValueError(f"has a character that cannot be printed: {shown(value)}", "take it out")
    return value


def integer(low: int, high: int) -> Hook:
    """A hook for whole numbers from low to high. A boolean, a float or a string is none."""

    def hook(value: object, _: object = None) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidValueError(
                f"is {kind(value)}, not an integer", f"write a number from {low} to {high}, without quotes"
            )
        if not low <= value <= high:
            raise InvalidValueError(f"is {shown(value)}, out of range", f"write a number from {low} to {high}")
        return value

    return hook


def number(value: object, unit: str = "") -> float:
    """A finite float; an integer is one too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidValueError(f"is {kind(value)}, not a number", f"write a number{unit}, without quotes")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise InvalidValueError(f"is not a finite number: {shown(value)}", f"write a number{unit}")
    return result


def seconds(*, zero: bool = False) -> Hook:
    """A hook for a duration in seconds, above zero (or from zero on) and at most a day."""

    def hook(value: object, _: object = None) -> float:
        result = number(value, " of seconds")
        if result < 0 or (result == 0 and not zero):
            wanted = "0 or more" if zero else "more than 0"
            raise InvalidValueError(f"is {shown(value)}, but a duration must be {wanted}", "write a number of seconds")
        if result > MAX_SECONDS:
            raise InvalidValueError(f"is {shown(value)} seconds, more than a day", f"write at most {MAX_SECONDS:g}")
        return result

    return hook


def advert_int(value: object, _: object = None) -> float:
    """Seconds between adverts. VRRP version 3 carries hundredths of a second in 12 bits (RFC 5798, 5.2.7)."""
    result = number(value, " of seconds")
    if not 0.01 <= result <= 40.95:
        raise InvalidValueError(
            f"is {shown(value)}, out of range", "write 0.01 to 40.95 seconds (VRRP version 3); 1 is usual"
        )
    hundredths = round(result * 100)
    if abs(result * 100 - hundredths) > 1e-6:
        raise InvalidValueError(
            f"is {shown(value)}, but VRRP counts in hundredths of a second", f"write {hundredths / 100:g}"
        )
    return result


def address(value: object, _: object = None) -> str:
    """A unicast IPv4 address as EC2 gives to interfaces, without a prefix length."""
    written = text(value)
    try:
        parsed = ipaddress.IPv4Address(written)
    except ValueError:
        raise InvalidValueError(f"is not an IPv4 address: {shown(written)}", _address_hint(written)) from None
    special = parsed.is_loopback or parsed.is_multicast or parsed.is_link_local or parsed.is_reserved
    if special or parsed in ipaddress.IPv4Network("0.0.0.0/8"):
        raise InvalidValueError(
            f"is not an address that EC2 gives to an interface: {shown(written)}",
            "write a private address of the subnet, like 10.0.0.10",
        )
    return written


def _address_hint(written: str) -> str:
    try:
        interface = ipaddress.ip_interface(written.strip())
    except ValueError:
        return "write four numbers from 0 to 255 without leading zeros, like 10.0.0.10"
    if interface.version == 6:
        return "only IPv4 moves: EC2 cannot reassign an IPv6 address in one call"
    return f'write "{interface.ip}", without a prefix length or spaces'


def name(what: str, pattern: str, hint: str) -> Hook:
    """A hook for a string that matches the whole pattern."""
    compiled = re.compile(pattern)

    def hook(value: object, _: object = None) -> str:
        written = text(value)
        if not compiled.fullmatch(written):
            raise InvalidValueError("is empty" if not written else f"is not {what}: {shown(written)}", hint)
        return written

    return hook


node_name = name(
    "a node's name",
    r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}",
    "use letters, digits, `_`, `-` and `.`, at most 63, beginning with a letter, a digit or `_`",
)
group_name = name(
    "a group's name",
    r"[A-Za-z0-9_][A-Za-z0-9_-]{0,31}",
    "use letters, digits, `_` and `-`, at most 32, beginning with a letter, a digit or `_`",
)
interface_name = name(
    "an interface's name",
    r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}",
    "write a name as `ip link` shows it, at most 15 characters, like eth0 or ens5; or leave it out",
)
_volume = name(
    "a volume id",
    r"(arn:aws[a-z-]*:ec2:[a-z0-9-]+:([0-9]{12}|\*):volume/)?vol-([0-9a-f]{8}|[0-9a-f]{17})",
    "write `vol-` and 17 (or 8) lower-case hexadecimal digits, as `aws ec2 describe-volumes` shows it, or its ARN",
)
instance_id = name(
    "an instance id",
    r"i-([0-9a-f]{8}|[0-9a-f]{17})",
    "write `i-` and 17 (or 8) lower-case hexadecimal digits, or leave it out: the address finds it",
)
region = name(
    "a region",
    r"[a-z]{2,5}(-[a-z]+)+-[0-9]{1,2}",
    "write a region such as eu-west-1 (not a zone such as eu-west-1a), or leave it out",
)
fstype = name(
    "a file system type",
    r"[a-z][a-z0-9_.-]{0,31}",
    "write ext4, xfs, … as blkid names it, or leave it out: it is read from the device",
)
# What keepalived.conf can take without quoting of its own, and a notify line without a shell.
command = name(
    "an absolute path of plain characters",
    r"/[A-Za-z0-9_.+/-]{1,1000}",
    "write the absolute path of awsha, like /usr/bin/awsha: letters, digits, `_ . + - /`",
)
# node_exporter reads files of this ending only (its README, "Textfile Collector").
textfile = name(
    "an absolute path that ends in .prom",
    r"/[A-Za-z0-9_.+/-]{1,1000}\.prom",
    "write a file in the directory that node_exporter reads, like /var/lib/node_exporter/awsha.prom",
)

sns_topic = name(
    "the ARN of an SNS topic",
    r"arn:aws[a-z-]*:sns:[a-z0-9-]{1,30}:[0-9]{12}:[A-Za-z0-9_-]{1,251}(\.fifo)?",
    'write the ARN as `aws sns list-topics` shows it, like "arn:aws:sns:eu-west-1:123456789012:alarms"',
)


def volume_in(written: str) -> str:
    """The id of a volume that is written as its id or as its ARN."""
    return written.rpartition("/")[2]


def volume_id(value: object, wanted: object = None) -> str:
    """A volume's id, also out of its ARN."""
    return volume_in(str(_volume(value, wanted)))


def mount_point(value: object, _: object = None) -> str:
    """An absolute, plain path below which the host does not live."""
    path = text(value)
    if not path.startswith("/"):
        raise InvalidValueError(
            "is empty" if not path else f"is a relative path: {shown(path)}",
            f'write an absolute path: "{posixpath.normpath("/" + (path or "srv/data"))}"',
        )
    plain = "/" + posixpath.normpath(path).lstrip("/")
    if plain in SYSTEM_DIRECTORIES or any(plain == tree or plain.startswith(tree + "/") for tree in SYSTEM_TREES):
        raise InvalidValueError(
            f"is a path that the host itself needs: {shown(plain)}",
            'mount the volume on a directory of its own, like "/srv/data"',
        )
    if plain != path:
        raise InvalidValueError(f"is not written plainly: {shown(path)}", f'write "{plain}"')
    if len(path) > 1024:
        raise InvalidValueError("is longer than 1024 characters", "choose a shorter path")
    return path


def mount_options(value: object, _: object = None) -> str:
    """mount(8) options, comma separated, without the ones that contradict a read-write mount of a device."""
    options = text(value)
    if re.search(r"\s", options):
        raise InvalidValueError(
            f"has white space in it: {shown(options)}", 'separate options by commas only: "noatime,nodev"'
        )
    for option in options.split(","):
        if option.partition("=")[0] in REFUSED_OPTIONS:
            raise InvalidValueError(
                f"has `{option}`, but a master mounts the device itself, read-write", f"take `{option}` out"
            )
    return options


def unit(value: object, _: object = None) -> str:
    """The name of a systemd unit that can be started, with its suffix."""
    written = text(value)
    if UNIT.fullmatch(written) and not written.startswith("@"):
        if re.search(r"@\.\w+$", written):
            raise InvalidValueError(
                f"is a template without an instance: {shown(written)}",
                f'write the instance: "{written.replace("@.", "@main.")}"',
            )
        return written
    if re.fullmatch(r"[A-Za-z0-9:_.\\@-]{1,240}", written):
        raise InvalidValueError(
            f"has no suffix of a unit that can be started: {shown(written)}", f'write "{written}.service"'
        )
    raise InvalidValueError(
        "is empty" if not written else f"is not a unit's name: {shown(written)}",
        'write it as systemctl shows it, like "postgresql.service"',
    )


def argv(value: object, _: object = None) -> tuple[str, ...]:
    """A program by absolute path and its arguments. No shell reads it."""
    if not isinstance(value, list):
        raise InvalidValueError(
            f"is {kind(value)}, not an array of words", 'write each word by itself: ["/usr/bin/prog", "arg"]'
        )
    if not value:
        raise InvalidValueError("is empty", 'write a program and its arguments: ["/usr/bin/prog", "arg"]')
    found: list[InvalidValueError] = []
    for index, word in enumerate(value):
        try:
            text(word)
        except InvalidValueError as error:
            found.append(InvalidValueError(error.reason, error.hint, (index,)))
    first = value[0]
    if isinstance(first, str) and not found and (not first.startswith("/") or first.endswith("/")):
        found.append(
            InvalidValueError(
                f"is not an absolute path of a program: {shown(first)}",
                f'write where it is: "/usr/bin/{first.strip("/").split("/")[-1]}"',
                (0,),
            )
        )
    if found:
        raise ExceptionGroup("argv", found)
    return tuple(value)


def vips(value: object, _: object = None) -> tuple[str, ...]:
    """At least one address; at most what an interface can hold."""
    if not isinstance(value, list):
        raise InvalidValueError(f"is {kind(value)}, not an array of addresses", 'write vips = ["10.0.0.100"]')
    if not value:
        raise InvalidValueError("is empty", 'name at least one address: vips = ["10.0.0.100"]')
    if len(value) > MAX_VIPS:
        raise InvalidValueError(
            f"has {len(value)} addresses", f"an EC2 interface holds {MAX_VIPS} besides its primary one: use fewer"
        )
    found: list[InvalidValueError] = []
    for index, item in enumerate(value):
        try:
            address(item)
        except InvalidValueError as error:
            found.append(InvalidValueError(error.reason, error.hint, (index,)))
    if found:
        raise ExceptionGroup("vips", found)
    return tuple(value)


def tags(value: object, _: object = None) -> tuple[tuple[str, str], ...]:
    """Tag names and values (EC2: 1 to 128 and 0 to 256 characters), in the order of the file."""
    return _pairs(value, 'write tags = { Name = "db-data" }', _tag)


def _tag(key: str, value: object) -> str:
    if not 1 <= len(key) <= 128:
        raise InvalidValueError("is not a tag's name of 1 to 128 characters", "write the tag as EC2 shows it")
    if len(text(value)) > 256:
        raise InvalidValueError("is longer than 256 characters", "write the tag as EC2 shows it")
    return str(value)


def priorities(value: object, _: object = None) -> tuple[tuple[str, int], ...]:
    """Node name to VRRP priority, in the order of the file."""
    ranged = integer(1, 254)
    return _pairs(value, "write priorities = { a = 100, b = 150 }", lambda _key, item: ranged(item, int))


def _pairs(value: object, hint: str, check: Callable[[str, object], Any]) -> tuple[tuple[str, Any], ...]:
    if not isinstance(value, dict):
        raise InvalidValueError(f"is {kind(value)}, not a table", hint)
    if not value:
        raise InvalidValueError("is empty", f"{hint}, or leave it out")
    found: list[InvalidValueError] = []
    pairs: list[tuple[str, Any]] = []
    for key, item in value.items():
        try:
            pairs.append((key, check(key, item)))
        except InvalidValueError as error:
            found.append(InvalidValueError(error.reason, error.hint, (key,)))
    if found:
        raise ExceptionGroup("table", found)
    return tuple(pairs)
