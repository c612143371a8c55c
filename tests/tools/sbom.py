"""dist/awsha-VERSION.cdx.json: what awsha consists of at run time, as a CycloneDX bill of materials (`make sbom`).

cyclonedx-py describes the whole environment; what is there only to develop and test is taken out again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from awsha import __version__
from tests.tools.audit import closure

ROOT = Path(__file__).parents[2]


def environment() -> dict[str, Any]:
    """The bill of the environment that runs this. Raises CalledProcessError."""
    argv = [
        sys.executable, "-m", "cyclonedx_py", "environment", "--pyproject", "pyproject.toml",
        "--mc-type", "application", "--output-reproducible", "--of", "JSON", sys.executable,
    ]  # fmt: skip
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    bill: dict[str, Any] = json.loads(done.stdout)
    return bill


def at_run_time(bill: dict[str, Any], wanted: frozenset[str]) -> dict[str, Any]:
    """The same bill with the wanted components only, and awsha as what it is about. Raises KeyError: one is missing."""
    by_name = {str(canonicalize_name(item["name"])): item for item in bill["components"]}
    chosen = [by_name[name] for name in sorted(wanted)]
    about = bill["metadata"]["component"]
    about["version"] = __version__
    refs = {item["bom-ref"] for item in (*chosen, about)}
    edges = [
        {**edge, "dependsOn": kept} if (kept := [ref for ref in edge.get("dependsOn", ()) if ref in refs])
        else {"ref": edge["ref"]}
        for edge in bill["dependencies"] if edge["ref"] in refs
    ]  # fmt: skip
    return {**bill, "components": chosen, "dependencies": edges}


def main() -> int:
    """Write it."""
    bill = at_run_time(environment(), frozenset(closure()))
    target = ROOT / "dist" / f"awsha-{__version__}.cdx.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(bill, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"wrote {target}: {len(bill['components'])} components\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
