"""The pages say what is so: codes, commands, flags, links, names of AWS's API; and the reference is the code's."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import click
import pytest

from awsha.cli.main import cli
from awsha.core.catalogue import CATALOGUE
from awsha.core.situation import Code
from tests.tools import awscli, reference
from tests.tools.pages import FENCE, PAGES, ROOT, SHELL, Block, blocks, shell_lines, spans

RUNBOOK = ROOT / "docs" / "runbook.md"
SHOWS = {"wait": "waits", "unknown": "waits", "block": "blocked"}  # Draft's methods: what a person sees
# Pages that a test in the lab follows: those with blocks that nodes run.
FOLLOWED = {"getting-started.md", "migration.md", "check.md", "history.md", "configuration.md"}
# By tests/adapters/test_conf_pages.py and `make ansible`, each in one page.
APART = {"terraform": "terraform.md", "deploy": "watcher.md", "revision": "codedeploy.md", "ansible": "ansible.md"}
ROOM = {"a", "b", "a b", "boot b", "crash b", "here", "aws", "procedure", *APART}
by_name = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


# --- the runbook -------------------------------------------------------------------------------------------------


def shown() -> dict[str, set[str]]:
    """Each code that core gives as a reason -> whether it waits, is blocked, or both. Read out of the source."""
    found: dict[str, set[str]] = {}
    for file in (ROOT / "awsha" / "core").glob("*.py"):
        for call in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            first = call.args[0] if call.args else None
            if name in SHOWS and _is_code(first):
                found.setdefault(Code[first.attr].value, set()).add(SHOWS[name])
    # Reasons that `pace` builds itself: of these only `denied` needs somebody.
    for word in (Code.RUNNING, Code.SETTLING, Code.RETRY):
        found.setdefault(word.value, set()).add("waits")
    found.setdefault(Code.DENIED.value, set()).add("blocked")
    return found


def _is_code(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Code"


def entries() -> dict[str, str]:
    """The runbook's entries: code -> text."""
    text = RUNBOOK.read_text()
    codes = text[text.index("\n## Codes") : text.index("\n## Procedures")]
    parts = re.split(r"^#### `([a-z0-9-]+)`\n", codes, flags=re.MULTILINE)[1:]
    assert len(parts[::2]) == len(set(parts[::2])), "an entry stands twice"
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_every_code_that_is_shown_has_an_entry_and_no_entry_is_of_another():
    assert set(entries()) == set(shown())


def test_a_code_that_is_never_shown_says_so_and_only_such_a_code_does():
    source = (ROOT / "awsha" / "core" / "situation.py").read_text()
    hidden = set(re.findall(r'= "([a-z0-9-]+)"  # never shown', source))
    assert hidden == {code.value for code in Code} - set(shown())


@pytest.mark.parametrize("code", sorted(shown()))
def test_an_entry_says_whether_it_waits_what_awsha_does_and_what_to_do(code: str):
    text = entries()[code].strip()
    head = re.split(r"[.;]", text)[0]
    said = {word for word in ("waits", "blocked") if re.search(rf"\b{word}\b", " ".join(text.split(". ")[0].split()))}
    assert head in ("waits", "blocked"), "it begins with what it is"
    assert said == shown()[code]
    assert re.search(r"^- awsha: \S", text, re.MULTILINE)
    assert re.search(r"^- You: \S", text, re.MULTILINE)


# --- commands and flags ----------------------------------------------------------------------------------------------


def awsha_commands(page: Path) -> Iterator[str]:
    """Every `awsha …` of a page, in blocks and in the text."""
    lines = [line for block in blocks(page) for line in shell_lines(block.text)] if page.name != "reference.md" else []
    for line in [*lines, *spans(page)]:
        for part in re.split(r"&&|;|\||\$\(|>", line):
            words = part.strip().removeprefix('"')
            if words.startswith("awsha ") and "…" not in words:
                yield words


@by_name
def test_commands_and_flags_exist(page: Path):
    for words in awsha_commands(page):
        assert wrong_flag(words) == "", f"{page.name}: {words}"


def wrong_flag(words: str) -> str:
    """The word of a command line that no command or flag is called; empty when there is none."""
    command: click.Command = cli
    flags = {"--config", "--version", "--help", "-h"}
    context = click.Context(cli)
    rest = re.sub(r"[\[\]()\"]", " ", words).split()[1:]
    while rest:
        word = rest.pop(0)
        if word == "--":
            break
        if word.startswith("-"):
            if word not in flags | {name for p in command.params for name in (*p.opts, *p.secondary_opts)}:
                return word
            if word == "--config":
                rest = rest[1:]
        elif isinstance(command, click.Group):
            for name in word.split("/"):  # `awsha pause/resume`
                found = command.get_command(context, name.rstrip(",.:"))
                if found is None:
                    return name
            command = found
    return ""


@pytest.mark.parametrize(
    "words", ["awsha statos", "awsha status --jason", "awsha lab explode", "awsha lab up --nodez 3"]
)
def test_a_wrong_word_would_be_found(words: str):
    assert wrong_flag(words)


@by_name
def test_aws_commands_name_what_exists(page: Path):
    found = 0
    for block in blocks(page):
        for line in shell_lines(block.text):
            for command in awscli.commands(line):
                found += 1
                assert list(awscli.mistakes(command)) == [], f"{block}: {command}"
    for text in (*spans(page), *re.findall(r"^- What to do: (.*)$", page.read_text(), re.MULTILINE)):
        for command in awscli.commands(text):
            assert list(awscli.mistakes(command, whole=False)) == [], f"{page.name}: {command}"
    assert found or page.name != "getting-started.md"


def test_hints_of_the_program_name_what_exists_in_aws():
    """Hints of `awsha check`, and every string of the source that has an aws command in it."""
    texts = [entry.hint for entry in CATALOGUE.values()]
    for file in (ROOT / "awsha").rglob("*.py"):
        strings = (n.value for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Constant))
        texts += [text for text in strings if isinstance(text, str) and "aws ec2 " in text]
    assert len(texts) > len(CATALOGUE)
    for text in texts:
        for command in awscli.commands(text):
            assert list(awscli.mistakes(command, whole=False)) == [], command


@pytest.mark.parametrize(
    "command",
    [
        "aws ec2 atach-volume --volume-id x",
        "aws ec2 detach-volume --volume x",
        "aws ec2 detach-volume --force",
        "aws ec2 wait volume-there --volume-ids x",
        "aws ec2 authorize-security-group-ingress --group-id x --ip-permissions IpProtokol=112",
        "aws s3 copy a b",
        "aws s3 cp a",
        "aws cloudformation deploy --stack-name x",
        "aws cloudformation deploy --stack-name x --template-file conf/cloudformation/no.yaml",
        "aws cloudformation deploy --stack-name x --template-file conf/cloudformation/awsha-pair.yaml "
        "--parameter-overrides NoSuch=1",
    ],
)
def test_a_wrong_aws_command_would_be_found(command: str):
    assert list(awscli.mistakes(command))


# --- pages ---------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@by_name
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        file, _, anchor = target.partition("#")
        if file.startswith("http"):
            continue
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(there), f"{page.name}: {target}"


@by_name
def test_every_page_is_linked_from_the_readme(page: Path):
    readme = (ROOT / "README.md").read_text()
    assert page.name == "README.md" or f"](docs/{page.name})" in readme


COMMANDS = [block for page in PAGES for block in blocks(page) if block.language in SHELL]


@pytest.mark.parametrize("block", COMMANDS, ids=str)
def test_every_block_of_commands_is_run_by_a_test_or_says_why_not(block: Block):
    assert block.language, "it says what it is: sh, text, toml, json"
    assert block.who in ROOM or len(block.reason) > len("too short"), "it needs a marker, and without a test a reason"
    assert APART.get(block.who, block.page) == block.page, "its test does not read this page"
    lines = shell_lines(block.text)
    if any(awscli.commands(line) for line in lines) and not block.reason:
        assert block.who in ("aws", "procedure", "deploy"), "aws commands stand by themselves"
    if block.who == "aws":
        assert all(awscli.commands(line) or line.startswith("pip wheel ") for line in lines), lines
    elif block.who in ROOM - {"here", "procedure"} - set(APART):
        assert block.page in FOLLOWED
    elif block.who == "procedure":
        missing = [line for line in lines if line not in _played() and not awscli.commands(line)]
        assert missing == [], "no test runs it"


@by_name
def test_blocks_are_fenced(page: Path):
    """What is only indented says neither what it is nor who runs it."""
    text = FENCE.sub("", page.read_text())
    indented = re.findall(r"\n\n {4}(?!<!-- run: )(.*)", text)
    assert indented == []


@lru_cache
def _played() -> frozenset[str]:
    """The lines of procedures that tests run: the arguments of `runbook`."""
    files = [ROOT / "tests" / "lab" / "test_docs.py", ROOT / "tests" / "nspawn" / "test_units.py"]
    calls = (node for file in files for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))
    named = (node.args[0] for node in calls if isinstance(node.func, ast.Name) and node.func.id == "runbook")
    return frozenset(str(ast.literal_eval(argument)) for argument in named)


def test_what_is_followed_is_what_the_tests_in_the_lab_follow():
    source = (ROOT / "tests" / "lab" / "test_docs.py").read_text()
    assert set(re.findall(r'\.follow\(\s*"([a-z-]+\.md)"', source)) == FOLLOWED


def test_every_section_that_ansible_runs_is_in_its_tests():
    text = (ROOT / "docs" / "ansible.md").read_text()
    sections = {part.splitlines()[0] for part in text.split("\n## ")[1:] if "<!-- run: ansible -->" in part}
    source = (ROOT / "tests" / "ansible" / "full.py").read_text()
    assert set(re.findall(r'\.section\("([^"]+)"\)', source)) == sections


def test_the_reference_is_what_the_generator_writes_now():
    text = (ROOT / "docs" / "reference.md").read_text()
    assert text == reference.page(), "make it again: python -m tests.tools.reference"


def test_a_field_without_a_meaning_is_not_passed_over():
    source = "class Node:\n    # two\n    # lines\n    name: str  # and one. None: nothing\n    other: int\n"
    assert reference.comments(source) == {("Node", "name"): "two lines and one"}


def test_the_policy_of_the_guide_is_json():
    """The assume-role document of the guide is what IAM takes."""
    text = "\n".join(block.text for block in blocks(ROOT / "docs" / "getting-started.md"))
    documents = re.findall(r"--assume-role-policy-document '(.*?)'", text, re.DOTALL)
    assert [json.loads(document)["Version"] for document in documents] == ["2012-10-17"]
