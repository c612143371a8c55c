"""The manual pages name all there is, and both formatters take them without a word."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from awsha.cli.main import COMMANDS
from tests.tools import manual, reference

LINTERS = {
    "groff": ["groff", "-man", "-ww", "-K", "utf8", "-T", "utf8"],
    "mandoc": ["mandoc", "-T", "lint", "-W", "style"],
}


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """The pages, dated."""
    return manual.pages("1.0", 1_700_000_000)


def test_every_command_with_its_flags_and_every_key_is_there(pages: dict[str, str]):
    program, lab, file = pages["awsha.1"], pages["awsha-lab.1"], pages["awsha.toml.5"]
    for name in {*COMMANDS, "notify"} - {"config", "lab"}:
        assert f".SS awsha {manual.plain(name)}" in program
    for context in reference.leaves():
        page = lab if context.command_path.startswith("awsha lab ") else program
        assert f".SS {manual.plain(reference.usage(context))}\n" in page
        for names, _, _ in reference.flags(context):
            assert all(f"\\fB{manual.plain(name)}\\fR" in page for name in names)
    for _, rows in reference.tables():
        assert all(f"\\fB{manual.plain(name)}\\fR" in file for name, *_ in rows)


@pytest.mark.parametrize("linter", LINTERS)
def test_no_formatter_complains(pages: dict[str, str], linter: str, tmp_path: Path):
    if shutil.which(linter) is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no {linter}, and this is CI")
        pytest.skip(f"no {linter} here")
    for name, text in pages.items():
        file = tmp_path / name
        file.write_text(text)
        done = subprocess.run([*LINTERS[linter], str(file)], capture_output=True, text=True, timeout=30, check=False)
        complaints = done.stderr if linter == "groff" else done.stdout + done.stderr
        assert (done.returncode, complaints) == (0, "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a `--flag` and [a page](page.md#part)", r"a \fB\-\-flag\fR and a page"),
        (".dot first", r"\&.dot first"),
        ("it's 'quoted' \\ ", r"it\(aqs \(aqquoted\(aq \e"),
        ("", r"\&"),
    ],
)
def test_nothing_of_a_text_is_taken_for_roff(text: str, shown: str):
    assert "\n".join(manual.wrapped(text)) == shown
