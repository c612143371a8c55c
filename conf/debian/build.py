"""The Debian package out of this tree: `python -m conf.debian.build [-o DIR] [--version V]`, or `make deb`.

It holds a virtual environment, made by hand: /opt/awsha/bin/python3 is a link to the system's, which finds pyvenv.cfg
beside it and so looks for packages below /opt/awsha alone. Not one that `python -m venv` made: that has pip, knows one
minor version of Python, and is not the same twice. Not a launcher that sets sys.path: `awsha notify` and the agent
start `sys.executable -I -m awsha`, which has to find the same packages.

The packages are those of the environment that runs this, so what is packaged is what the tests ran with. All of them
are pure Python, which is looked at here: one package serves every architecture, and every Python from 3.11 to 3.13.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import awsha
from awsha.cli.complete import SHELLS, script
from awsha.cli.main import cli
from tests.tools import manual

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PYTHONS = range(11, 14)  # minor versions, each of them tried; `control` says the same
PACKAGES = "opt/awsha/lib/python3/site-packages"
# botocore describes 400 services in 25 MB. These are what the agent calls, and what credentials may come from.
SERVICES = {"ec2", "kms", "signin", "sso", "sso-oidc", "sts"}
LEFT_OUT = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")
PROGRAM = """\
#!/opt/awsha/bin/python3 -I
import sys
from awsha.__main__ import main
sys.exit(main())
"""
COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/awsha",
    "zsh": "usr/share/zsh/vendor-completions/_awsha",
    "fish": "usr/share/fish/vendor_completions.d/awsha.fish",
}
EXAMPLES = ("awsha.toml", "prometheus", "grafana", "cloudformation")


def build(output: Path, version: str) -> Path:
    """Make DIR/awsha_VERSION_all.deb; returns it. The same tree and environment give the same bytes.

    Raises SystemExit with what is wrong, CalledProcessError, OSError.
    """
    output.mkdir(parents=True, exist_ok=True)
    when = epoch()
    with tempfile.TemporaryDirectory(dir=output, prefix=".deb-") as folder:
        stage = Path(folder) / "stage"
        environment(stage, version)
        system(stage, version, when)
        documents(stage)
        control(stage, version)
        settle(stage, when)
        target = output / f"awsha_{version}_all.deb"
        argv = ["dpkg-deb", "--root-owner-group", "-Zzstd", "--build", str(stage), str(target)]
        subprocess.run(argv, env={**os.environ, "SOURCE_DATE_EPOCH": str(when)}, check=True, stdout=subprocess.DEVNULL)
    return target


def epoch() -> int:
    """The time of everything in the package: SOURCE_DATE_EPOCH, or that of the last commit, or of the changelog."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    argv = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    try:
        return int(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return int((ROOT / "CHANGELOG.md").stat().st_mtime)


# --- what is in it -------------------------------------------------------------------------------------------------


def environment(stage: Path, version: str) -> None:
    """/opt/awsha: the interpreter's link, the program, awsha and what it needs."""
    packages = stage / PACKAGES
    packages.mkdir(parents=True)
    for minor in PYTHONS:
        (packages.parents[1] / f"python3.{minor}").symlink_to("python3")
    for file in sorted((ROOT / "awsha").rglob("*")):
        if file.suffix == ".py" or file.name == "py.typed":
            copy(file, packages / file.relative_to(ROOT))
    start = packages / "awsha/__init__.py"
    start.write_text(re.sub(r'^__version__ = ".*"$', f'__version__ = "{version}"', start.read_text(), flags=re.M))
    for needed in needed_distributions():
        for source, name in files_of(needed):
            copy(source, packages / name)
    write(stage / "opt/awsha/pyvenv.cfg", "home = /usr/bin\ninclude-system-site-packages = false\n")
    write(stage / "opt/awsha/bin/awsha", PROGRAM, 0o755)
    (stage / "opt/awsha/bin/python3").symlink_to("/usr/bin/python3")


def needed_distributions() -> list[Distribution]:
    """What awsha needs, and what that needs, as it is in the environment that runs this; by name."""
    wanted = [
        Requirement(line) for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    ]
    found: dict[str, Distribution] = {}
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        there = found.setdefault(name, distribution(name))
        if not requirement.specifier.contains(there.version, prereleases=True):
            raise SystemExit(f"{requirement} is needed, and {there.version} is here: rm -r .venv; make .venv")
        wanted += [
            Requirement(line) for line in there.requires or () if canonicalize_name(Requirement(line).name) not in found
        ]
    return [found[name] for name in sorted(found)]


def files_of(package: Distribution) -> Iterator[tuple[Path, str]]:
    """(file, name below site-packages) for each file of a distribution but programs and what pip notes for itself."""
    for entry in package.files or ():
        name = str(entry)
        service = re.match(r"botocore/data/([^/]+)/", name)
        if name.startswith("..") or "__pycache__" in name or entry.name in LEFT_OUT:
            continue
        if service and service[1] not in SERVICES:
            continue
        if entry.suffix in (".so", ".pyd"):
            raise SystemExit(f"{name} is no Python: the package can't be for every architecture any more")
        yield Path(str(entry.locate())), name


def system(stage: Path, version: str, when: int) -> None:
    """What the distribution's programs look for: the command, units, pages, completions, the folder for awsha.toml."""
    (stage / "usr/bin").mkdir(parents=True)
    (stage / "usr/bin/awsha").symlink_to("/opt/awsha/bin/awsha")
    for unit in sorted((ROOT / "systemd").rglob("*.*")):
        if unit.is_file():
            copy(unit, stage / "usr/lib/systemd/system" / unit.relative_to(ROOT / "systemd"))
    for name, text in manual.pages(version, when).items():
        compress(stage / f"usr/share/man/man{name[-1]}/{name}.gz", text)
    for shell in SHELLS:
        write(stage / COMPLETIONS[shell], script(cli, shell))
    (stage / "etc/awsha").mkdir(parents=True)
    (stage / "etc/awsha").chmod(0o700)


def documents(stage: Path) -> None:
    """The pages and the examples."""
    target = stage / "usr/share/doc/awsha"
    copy(HERE / "copyright", target / "copyright")
    for page in ("README.md", "CHANGELOG.md"):
        copy(ROOT / page, target / page)
    for page in sorted((ROOT / "docs").rglob("*.md")):
        copy(page, target / page.relative_to(ROOT))
    for example in EXAMPLES:
        for file in sorted((ROOT / "conf" / example).rglob("*")) or [ROOT / "conf" / example]:
            if file.is_file():
                copy(file, target / "examples" / file.relative_to(ROOT / "conf"))


def control(stage: Path, version: str) -> None:
    """DEBIAN/: control, checksums, maintainer scripts."""
    files = [file for file in sorted(stage.rglob("*")) if file.is_file() and not file.is_symlink()]
    sums = [f"{hashlib.md5(file.read_bytes()).hexdigest()}  {file.relative_to(stage)}\n" for file in files]  # noqa: S324
    size_kib = sum(-(-file.stat().st_size // 1024) for file in files)
    text = (HERE / "control").read_text().format(version=version, size_kib=size_kib)
    write(stage / "DEBIAN/control", text)
    write(stage / "DEBIAN/md5sums", "".join(sums))
    for name in SCRIPTS:
        write(stage / "DEBIAN" / name, (HERE / name).read_text(), 0o755)


# --- files ---------------------------------------------------------------------------------------------------------


def copy(source: Path, target: Path) -> None:
    """One file, readable for everybody."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o644)


def write(target: Path, text: str, mode: int = 0o644) -> None:
    """One file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    target.chmod(mode)


def compress(target: Path, text: str) -> None:
    """One file by gzip, without name and time in it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    target.chmod(0o644)


def settle(stage: Path, when: int) -> None:
    """One time for everything, and folders that everybody may enter, but for the configuration's."""
    stage.chmod(0o755)
    for path in sorted(stage.rglob("*")):
        if path.is_dir() and path != stage / "etc/awsha" and not path.is_symlink():
            path.chmod(0o755)
        os.utime(path, (when, when), follow_symlinks=False)
    os.utime(stage, (when, when))


def main(argv: list[str]) -> int:
    """Build; print where it is."""
    parser = argparse.ArgumentParser(prog="python -m conf.debian.build")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "dist", metavar="DIR")
    parser.add_argument("--version", default=awsha.__version__, help="another one than awsha/__init__.py says")
    given = parser.parse_args(argv)
    sys.stdout.write(f"{build(given.output, given.version)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
