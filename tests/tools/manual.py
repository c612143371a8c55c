"""Manual pages out of the code, as docs/reference.md is: `python -m tests.tools.manual DIR` writes them.

awsha(1), awsha-lab(1) and awsha.toml(5), in the man macros that groff and mandoc both know (man(7)). They are not kept
in the repository: the package is made with them.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

import awsha
from awsha.config import paths
from tests.tools import reference

SECTIONS = {"1": "User commands", "5": "File formats"}
CONFIG = "/etc/awsha/awsha.toml"
FILES = {
    CONFIG: "The configuration, the same on every node; awsha.toml(5).",
    f"{paths.HOOKS_DIR}/GROUP/POINT.d": "Programs of your own, run at a takeover and a release.",
    f"{paths.RUN_DIR}": "What the agent keeps until the next boot: roles that keepalived told, its socket, the files "
    "that keepalived tracks.",
    f"{paths.STATE_DIR}": "History; see `awsha history`.",
    "/usr/share/doc/awsha": "The guide, the runbook and examples, where awsha came as a Debian package.",
}
ENVIRONMENT = {
    "AWSHA_CONFIG": f"Another file than {CONFIG}.",
    "AWSHA_RUN_DIR": f"Another folder than {paths.RUN_DIR}.",
    "AWSHA_STATE_DIR": f"Another folder than {paths.STATE_DIR}.",
    "AWSHA_HOOKS_DIR": f"Another folder than {paths.HOOKS_DIR}.",
    "AWSHA_LAB": "The prefix of a lab's namespaces, cgroups and run folder: two labs fit on a machine.",
    "AWS_PROFILE, AWS_ENDPOINT_URL, AWS_EC2_METADATA_SERVICE_ENDPOINT": "And what else AWS's own tools know.",
}
SHORT = {
    "awsha": "high availability on AWS for one address, one disk and one service",
    "awsha-lab": "a whole awsha pair on this machine, without an AWS account",
    "awsha.toml": "configuration of awsha",
}
ABOUT = """\
keepalived decides which of two or more EC2 instances is master. awsha moves what the master needs: the secondary
private address of the ENI, the EBS volumes with their file systems, and the application on top.

The agent does the work (`awsha agent`, run by awsha-agent.service). keepalived's notify scripts only record what it
said. Every other command asks, shows, or tells the agent. Whatever fails says what to type next.

`awsha status` is where to begin.
"""
ABOUT_LAB = """\
Runs the real thing as root: keepalived processes, file systems on loop devices, a network that delivers an address only
to the node that holds it, and an EC2 that answers by its own rules. Nothing outside its namespaces and its run folder
changes, and `awsha lab down` leaves nothing behind. It needs the Python package moto, which the Debian package does not
bring.
"""
ABOUT_FILE = """\
One file in TOML, the same on every node. `awsha init` writes a first one, `awsha config show` shows every value and
where it came from. Unknown keys, wrong types and impossible values are errors; all of them are reported at once, with
exit code 78, and nothing is touched.
"""
WIDTH = 76
BOLD = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")


def pages(version: str = awsha.__version__, when: int = 0) -> dict[str, str]:
    """File name -> text. `when`: seconds since 1970, for the date at the foot."""
    contexts = list(reference.leaves())
    lab = [context for context in contexts if context.command_path.startswith("awsha lab ")]
    parts = {
        "awsha.1": _program([context for context in contexts if context not in lab]),
        "awsha-lab.1": _lab(lab),
        "awsha.toml.5": _file(),
    }
    return {name: settled([*_head(name, version, when), *lines]) for name, lines in parts.items()}


def _head(page: str, version: str, when: int) -> Iterator[str]:
    name, _, section = page.rpartition(".")
    date = datetime.fromtimestamp(when, UTC).date().isoformat()
    yield f'.TH "{plain(name).upper()}" "{section}" "{date}" "awsha {version}" "{SECTIONS[section]}"'
    yield ".nh"  # commands and paths are not to be broken in two
    yield ".SH NAME"
    yield f"{plain(name)} \\- {SHORT[name]}"


def _program(contexts: list[click.Context]) -> Iterator[str]:
    yield from (".SH SYNOPSIS", ".B awsha", "[\\fB\\-\\-config\\fR \\fIFILE\\fR]", ".I COMMAND", "[\\fIWORD\\fR ...]")
    yield from (".SH DESCRIPTION", *prose(ABOUT))
    yield ".SH OPTIONS"
    yield from entry("`--config` FILE", f"Another file than {CONFIG}; may stand behind the command too.")
    yield from entry("`--version`", "Print the version.")
    yield from entry("`-h`, `--help`", "Print help; behind a command, that command's.")
    yield ".SH COMMANDS"
    yield from _commands(contexts)
    yield from (".SS awsha notify ROLE GROUP", *prose(reference.NOTIFY))
    yield from (".SS awsha lab", *prose("See awsha-lab(1)."))
    yield from _exits()
    yield ".SH FILES"
    for path, text in FILES.items():
        yield from entry(path, text)
    yield ".SH ENVIRONMENT"
    for name, text in ENVIRONMENT.items():
        yield from entry(name, text)
    yield from _see_also("awsha.toml(5)", "awsha-lab(1)", "keepalived(8)", "keepalived.conf(5)")


def _lab(contexts: list[click.Context]) -> Iterator[str]:
    yield from (".SH SYNOPSIS", ".B awsha lab", ".I COMMAND", "[\\fIWORD\\fR ...]")
    yield from (".SH DESCRIPTION", *prose(ABOUT_LAB))
    yield ".SH COMMANDS"
    yield from _commands(contexts)
    yield from _see_also("awsha(1)")


def _commands(contexts: list[click.Context]) -> Iterator[str]:
    for context in contexts:
        yield f".SS {plain(reference.usage(context))}"
        yield from prose(inspect.cleandoc(context.command.help or ""))
        for names, word, text in reference.flags(context):
            yield from entry(", ".join(f"`{name}`" for name in names) + f" {word}", text)


def _exits() -> Iterator[str]:
    yield from (".SH EXIT STATUS", *prose(reference.EXITS_HEAD))
    for code, text in reference.EXITS.items():
        yield from entry(code, _sentence(text))
    yield from prose(reference.EXITS_OF_STATUS)


def _file() -> Iterator[str]:
    yield from (".SH SYNOPSIS", f".I {CONFIG}")
    yield from (".SH DESCRIPTION", *prose(ABOUT_FILE), *prose(reference.KEYS_HEAD))
    yield ".SH TABLES"
    for title, rows in reference.tables():
        yield f".SS {rich(title)}"
        for name, kind, default, meaning in rows:
            yield from entry(f"`{name}`", f"{_sentence(meaning)} Type: {kind}. Default: {default}.")
    yield ".SH EXAMPLE"
    yield from (".EX", *(line_of(line) for line in _example().splitlines()), ".EE")
    yield from _see_also("awsha(1)", "keepalived.conf(5)")


def _sentence(text: str) -> str:
    """With a capital, unless it begins with a name, and a full stop."""
    head = text.split(maxsplit=1)[0]
    is_a_word = head.isalpha() and head.islower() and head not in ("awsha", "keepalived")
    return (text[0].upper() + text[1:] if is_a_word else text) + "."


def _example() -> str:
    return (reference.PAGE.parents[1] / "conf" / "awsha.toml").read_text(encoding="utf-8").rstrip()


def _see_also(*pages: str) -> Iterator[str]:
    yield ".SH SEE ALSO"
    for page in pages:
        name, _, section = page.partition("(")
        yield f".BR {plain(name)} ({section}{',' if page != pages[-1] else ''}"


# --- roff ----------------------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    """Text as roff shows it: hyphens that can be copied, dots that every terminal has, no escapes but ours."""
    return text.replace("\\", "\\e").replace("…", "...").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")


def rich(text: str) -> str:
    """One line of Markdown's little that our texts use: `code` in bold, a link as its text."""
    parts = BOLD.split(LINK.sub(r"\1", " ".join(text.split())))
    return "".join(f"\\fB{plain(part)}\\fR" if index % 2 else plain(part) for index, part in enumerate(parts))


def line_of(text: str) -> str:
    """A line that is shown as it is: roff takes a dot or quote at its beginning for a request."""
    shown = plain(text)
    return "\\&" + shown if shown.startswith(".") else shown


def prose(text: str) -> Iterator[str]:
    """Paragraphs."""
    for paragraph in filter(None, (part.strip() for part in text.split("\n\n"))):
        yield ".PP"
        yield from wrapped(paragraph)


def entry(tag: str, text: str) -> Iterator[str]:
    """One entry of a list: what it is called, and what it does."""
    yield ".TP"
    yield rich(tag)
    yield from wrapped(text)


def wrapped(text: str) -> Iterator[str]:
    """Running text in lines of a length that mandoc likes. Raises nothing; an empty text is a line too."""
    for line in textwrap.wrap(rich(text), WIDTH, break_long_words=False, break_on_hyphens=False) or [""]:
        yield "\\&" + line if line.startswith((".", "'")) or not line else line


def settled(lines: Iterable[str]) -> str:
    """The page. A paragraph begins by itself after a heading: a request for one there is a mistake for mandoc."""
    kept: list[str] = []
    for line in lines:
        if line != ".PP" or not kept[-1].startswith((".SH", ".SS")):
            kept.append(line)
    return "\n".join(kept) + "\n"


def main(argv: list[str]) -> int:
    """Write the pages below a folder."""
    folder = Path(argv[0] if argv else "build/man")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"wrote {folder / name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
