"""Known vulnerabilities of what awsha runs on: `python -m tests.tools.audit`, a part of `make lint`.

Asked are pip-audit and through it PyPI, for the versions installed here of what pyproject.toml requires at run time
and of what that requires. A vulnerability fails; a service that does not answer, or does not know a version (a mirror),
is said and fails nothing: that is no mistake of this tree. An answer holds for a day, its absence for an hour.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build"
LIMIT_S = 60.0
REQUEST_S = 5
DAY_S, HOUR_S = 86400.0, 3600.0


def closure(name: str = "awsha") -> dict[str, str]:
    """What a distribution needs at run time, without its extras: name -> the version that is installed."""
    found: dict[str, str] = {}
    todo: list[tuple[str, frozenset[str]]] = [(name, frozenset())]
    done = set()
    while todo:
        entry = todo.pop()
        if entry in done:
            continue
        done.add(entry)
        distribution, extras = importlib.metadata.distribution(entry[0]), entry[1] or frozenset({""})
        for text in distribution.requires or ():
            wanted = Requirement(text)
            if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in extras):
                inner = str(canonicalize_name(wanted.name))
                found[inner] = importlib.metadata.version(inner)
                todo.append((inner, frozenset(wanted.extras)))
    return dict(sorted(found.items()))


def ask(packages: dict[str, str]) -> dict[str, Any]:
    """What pip-audit says; its words as `error` when it could not ask."""
    wanted = BUILD / "runtime.txt"
    wanted.write_text("".join(f"{name}=={version}\n" for name, version in packages.items()), encoding="utf-8")
    argv = [
        sys.executable, "-m", "pip_audit", "-r", str(wanted), "--no-deps", "--disable-pip", "-f", "json",
        "--progress-spinner", "off", "--timeout", str(REQUEST_S), "--cache-dir", str(BUILD / "pip-audit"),
    ]  # fmt: skip
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {LIMIT_S:g} s"}
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    return answer


def judged(answer: dict[str, Any]) -> tuple[int, list[str]]:
    """The exit code, and what to say."""
    if "error" in answer:
        return 0, [f"NOT audited for vulnerabilities: {answer['error']}"]
    entries = answer["dependencies"]
    found = [(entry, flaw) for entry in entries for flaw in entry.get("vulns", ())]
    skipped = [entry["name"] for entry in entries if "skip_reason" in entry]
    lines = []
    for entry, flaw in found:
        fixed = ", ".join(flaw.get("fix_versions") or ()) or "no version yet"
        names = " ".join([flaw["id"], *flaw.get("aliases", ())])
        lines.append(f"vulnerable: {entry['name']} {entry['version']}: {names}; mended in {fixed}")
    if skipped:
        lines.append(f"NOT audited, the service does not know these versions: {', '.join(skipped)}")
    if not found and len(skipped) < len(entries):
        lines.append(f"no known vulnerability in {len(entries) - len(skipped)} packages")
    return int(bool(found)), lines


def main() -> int:
    """Ask, or take today's answer; 1 when there is a vulnerability."""
    BUILD.mkdir(exist_ok=True)
    packages, kept = closure(), BUILD / "audit.json"
    try:
        last = json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        last = {}
    answer = last.get("answer", {})
    complete = "error" not in answer and not any("skip_reason" in entry for entry in answer.get("dependencies", ()))
    age_s = time.time() - last.get("at", 0.0)
    if last.get("packages") != packages or not 0 <= age_s < (DAY_S if complete else HOUR_S):
        answer = ask(packages)
        kept.write_text(json.dumps({"packages": packages, "at": time.time(), "answer": answer}), encoding="utf-8")
    code, lines = judged(answer)
    sys.stdout.write("".join(f"audit: {line}\n" for line in lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
