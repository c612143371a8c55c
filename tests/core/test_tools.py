"""What the build's own tools decide: vulnerabilities, the bill of materials, the recording."""

from __future__ import annotations

from packaging.utils import canonicalize_name

from tests.tools import audit, record, sbom

FLAW = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.0"]}


def test_a_vulnerability_fails_and_a_silent_service_does_not():
    entries = [{"name": "a", "version": "1.0", "vulns": [FLAW]}, {"name": "b", "version": "1", "vulns": []}]
    code, lines = audit.judged({"dependencies": [*entries, {"name": "c", "skip_reason": "not found"}]})
    assert code == 1
    assert lines == [
        "vulnerable: a 1.0: PYSEC-1 CVE-1; mended in 2.0",
        "NOT audited, the service does not know these versions: c",
    ]
    assert audit.judged({"dependencies": entries[1:]}) == (0, ["no known vulnerability in 1 packages"])
    code, (line,) = audit.judged({"error": "no answer"})
    assert (code, "NOT audited" in line) == (0, True)


def test_audited_is_what_runs_and_not_what_tests():
    found = audit.closure()
    assert {"boto3", "botocore", "urllib3", "pyroute2"} < found.keys()
    assert not {"pytest", "moto", "mypy", "awsha"} & found.keys()
    assert all(name == canonicalize_name(name) for name in found)


def test_the_bill_has_what_runs_and_its_edges_only():
    bill = {
        "components": [{"name": n, "bom-ref": f"{n}==1"} for n in ("Boto3", "pytest")],
        "metadata": {"component": {"name": "awsha", "bom-ref": "root"}},
        "dependencies": [
            {"ref": "root", "dependsOn": ["Boto3==1", "pytest==1"]},
            {"ref": "Boto3==1", "dependsOn": ["pytest==1"]},
            {"ref": "pytest==1"},
        ],
    }
    made = sbom.at_run_time(bill, frozenset({"boto3"}))
    assert [item["name"] for item in made["components"]] == ["Boto3"]
    assert made["dependencies"] == [{"ref": "root", "dependsOn": ["Boto3==1"]}, {"ref": "Boto3==1"}]


def test_a_recording_has_what_stayed_when_it_came():
    played = record.play([
        (0.5, "one\r\n"), (1.0, "\x1b[?25lspinner …"), (2.0, "\r\x1b[2K\x1b[1;32mtwo\x1b[0m ██\r\n"),
        (3.0, "\r\nfour\r\n"),
    ])  # fmt: skip
    assert played.text == "one\ntwo ██\n\nfour\n"
    assert played.at == [0.5, 2.0, 2.0, 3.0]
    picture = record.draw(played, "a & b")
    assert 'font-weight="bold">two</text>' in picture
    assert "a &amp; b" in picture
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", ""), "it needs nothing from anywhere"


def test_the_recording_in_the_tree_is_small_and_whole():
    text = record.PICTURE.read_text(encoding="utf-8")
    assert len(text) < 150_000
    assert "Everything is taken down again." in text
