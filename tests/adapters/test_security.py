"""Who may read and write what, and what is told to whom (docs/security.md)."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from awsha import notify
from awsha.agent import kept, paths, preflight_host
from awsha.agent.journal import Journal, log_to_stderr
from awsha.agent.lock import GroupLock
from awsha.agent.metrics import replace
from awsha.aws.ec2 import Ec2
from awsha.aws.errors import Ec2Error
from awsha.aws.metadata import Metadata, MetadataError
from awsha.cli.main import cli
from awsha.config.files import write_atomic
from awsha.config.load import refuse_unsafe
from awsha.config.problems import ConfigError
from awsha.core.errors import AwshaError
from awsha.core.policy import Application
from awsha.host import application, openfiles
from awsha.host.run import OWN, run
from tests.adapters.aws_fakes import Scripted, refusal, scripted_server
from tests.adapters.conftest import Sandbox, require_root
from tests.adapters.one_node import CONFIG, GROUP, OneNode, one_node, until

SOMEBODY = 65534
SECRET = "wJalrXUtnFEMIfakefakefakefakeEXAMPLEKEY1"
TOKEN = "notATokenThatAnyPatternKnowsEXAMPLE1234567890"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of root's with awsha.toml, and in it the places of a run and a state directory."""
    require_root()
    before = os.umask(0o022)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "awsha.toml").write_text(CONFIG)
    monkeypatch.setenv("AWSHA_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("AWSHA_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("AWSHA_CONFIG", str(tmp_path / "etc" / "awsha.toml"))
    yield tmp_path
    os.umask(before)


# --- what awsha writes ------------------------------------------------------------------------------------------


def modes(root: Path) -> dict[str, str]:
    """Everything below a folder that others than its owner may do anything with, or that is not root's."""
    found = {}
    for path in (root, *root.rglob("*")):
        info = path.lstat()
        if info.st_uid != 0 or stat.S_IMODE(info.st_mode) & 0o077:
            found[str(path)] = f"{stat.S_IMODE(info.st_mode):o} of {info.st_uid}"
    return found


def secrets_in(node: OneNode) -> list[str]:
    """Where a secret stands: in what the programs said, and in any file that they wrote."""
    files = [path for path in node.folder.rglob("*") if path.is_file() and path.name != "awsha.toml"]
    assert node.folder / "log" in files
    assert any("history" in str(path) for path in files)
    return [f"{path}" for path in files for word in (SECRET, TOKEN) if word in path.read_text(errors="replace")]


def test_an_agent_that_is_started_with_no_umask_keeps_all_to_itself_and_tells_no_secret(
    sandbox: Sandbox, tmp_path: Path
):
    """First with a token that no HTTP library can send (it quotes it), then with a good one; all is looked at."""

    def play() -> None:
        with one_node(tmp_path) as node:
            os.umask(0)
            node.environment |= {"AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": TOKEN + "\n"}
            first = node.start("agent", "-v")
            until(lambda: node.report() is not None, f"it reports\n{node.log}")
            assert node.awsha("notify", "master", GROUP) == 0
            until(lambda: "(not shown)" in node.log, f"EC2 can't be asked with such a token\n{node.log}")
            for words in (("status", "--json"), ("check", "--json"), ("config", "show", "--json"), ("plan", GROUP)):
                node.awsha(*words)
            first.terminate()
            assert first.wait(30) == 0
            node.environment["AWS_SESSION_TOKEN"] = TOKEN
            node.start("agent", "-v")
            until(node.holds_vip, f"it serves\n{node.log}")
            until(lambda: "converged" in node.log, node.log)
            assert node.awsha("history", "--json") == 0
            assert secrets_in(node) == []
            assert modes(node.run) == {}
            assert modes(node.folder / "state") == {}

    sandbox(play)


def test_directories_are_closed_to_others_and_never_somebody_elses(own: Path):
    os.umask(0)
    made = paths.private_dir(own / "run" / "marks" / "data")
    assert modes(own / "run") == {}
    (own / "run").chmod(0o755)
    GroupLock(GROUP)
    assert modes(own / "run") == {}, "what was readable before is not any more"
    os.chown(made, SOMEBODY, -1)
    with pytest.raises(OSError, match="belongs to user 65534"):
        paths.private_dir(made)
    (own / "link").symlink_to(own / "run")
    with pytest.raises(OSError, match="Not a directory"):
        paths.private_dir(own / "link")


def test_nothing_is_written_through_a_link(own: Path, monkeypatch: pytest.MonkeyPatch):
    precious, target = own / "precious", own / "target"
    precious.write_text("precious")
    monkeypatch.setattr(paths.threading, "get_native_id", lambda: 7)
    (own / f".target.{os.getpid()}.7").symlink_to(precious)
    (own / f".target.{os.getpid()}").symlink_to(precious)
    (own / f".m.prom.{os.getpid()}").symlink_to(precious)
    for write in (
        lambda: replace(own / "m.prom", "new"),
        lambda: paths.write_atomically(target, "new"),
        lambda: replace(target, "new"),
    ):
        target.unlink(missing_ok=True)
        target.symlink_to(precious)
        write()
    assert target.read_text() == "new"
    target.unlink()
    target.symlink_to(precious)
    with pytest.raises(AwshaError, match="is a symbolic link"):
        write_atomic(target, "new", 0o600)
    assert precious.read_text() == "precious"
    paths.private_dir(own / "run" / "health")
    for name in ("health/data", "converge-data.log", "lock"):
        (own / "run" / name).symlink_to(precious)
    assert "symbolic links" in paths.write_health("data", ok=False)
    with pytest.raises(OSError, match="symbolic links"):
        notify.start_converge("data")
    with pytest.raises(FileExistsError):
        GroupLock("data")
    assert precious.read_text() == "precious"


def test_a_picture_is_not_drawn_over_a_link_or_a_device(own: Path):
    (own / "link").symlink_to(own / "precious")
    os.mkfifo(own / "pipe")
    from awsha.cli.history import _write

    for name in ("link", "pipe"):
        with pytest.raises(AwshaError, match="no plain file"):
            _write(own / name, "picture")
    _write(own / "picture.svg", "picture")
    assert not (own / "precious").exists()


# --- what root believes -----------------------------------------------------------------------------------------


def _give(path: Path) -> None:
    os.chown(path, SOMEBODY, -1)


def _link(path: Path) -> None:
    moved = path.rename(path.parents[1] / "moved.toml")
    path.symlink_to(moved)
    moved.chmod(0o666)


CHANGES: dict[str, Callable[[Path], None]] = {
    "written by others": lambda file: file.chmod(0o602),
    "written by a group": lambda file: file.chmod(0o620),
    "somebody's": _give,
    "in a folder of others": lambda file: file.parent.chmod(0o777),
    "in a folder of somebody": lambda file: _give(file.parent),
    "a link to what others write": _link,
}


@pytest.fixture(params=CHANGES)
def unsafe(own: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """awsha.toml as another user could have written it."""
    file = own / "etc" / "awsha.toml"
    refuse_unsafe(file)
    assert preflight_host.unsafe(file) == ()
    CHANGES[request.param](file)
    yield file
    file.parent.chmod(0o755)


def test_a_configuration_that_others_could_have_written_is_not_followed(unsafe: Path):
    for words in (["agent"], ["converge", GROUP], ["plan", GROUP, "--role", "master"], ["switchover", GROUP]):
        with pytest.raises(ConfigError) as refused:
            cli.main(words, standalone_mode=False)
        assert refused.value.exit_code == 78
        assert "is not followed" in str(refused.value)
    (found,) = preflight_host.unsafe(unsafe)
    assert (found.path, bool(found.refused), bool(found.hint)) == (str(unsafe), True, True)


def test_a_release_goes_by_the_kept_copy_then(own: Path):
    file = own / "etc" / "awsha.toml"
    kept.keep(file)
    assert kept.to_let_go(file) == file
    file.chmod(0o666)
    assert kept.to_let_go(file) == paths.kept_configuration()


def test_another_user_may_have_any_file(own: Path):
    """A dry run on an administrator's own machine."""
    file = own / "etc" / "awsha.toml"
    file.chmod(0o666)
    child = os.fork()
    if child == 0:
        os.setuid(SOMEBODY)
        try:
            refuse_unsafe(file)
            paths.refuse_unsafe()
        except BaseException:  # noqa: BLE001
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("name", ["run", "state"])
def test_a_run_or_state_directory_in_which_others_could_have_put_something_is_refused(own: Path, name: str):
    place = paths.private_dir(own / name)
    paths.refuse_unsafe()
    place.chmod(0o733)
    with pytest.raises(AwshaError, match="written to by others") as refused:
        paths.refuse_unsafe()
    assert (refused.value.exit_code, f"AWSHA_{name.upper()}_DIR" in refused.value.hint) == (78, True)
    place.chmod(0o700)
    _give(place)
    with pytest.raises(AwshaError, match="does not belong to root"):
        cli.main(["agent"], standalone_mode=False)


# --- what others are told ---------------------------------------------------------------------------------------


def test_no_program_is_handed_the_credentials_or_the_wire_to_systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in OWN:
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("HARMLESS", "kept")
    told = run(["env"], 10).stdout
    assert "HARMLESS=kept" in told
    assert SECRET not in told
    assert f"AWS_ACCESS_KEY_ID={SECRET}" in run(["env"], 10, env={"AWS_ACCESS_KEY_ID": SECRET}).stdout, (
        "when it is told"
    )
    script = f"env > {tmp_path}/told"
    application.start(Application(start=("sh", "-c", script), stop=("true",), check=("true",)), 10)
    assert SECRET not in (tmp_path / "told").read_text()


def test_a_name_that_a_process_gave_itself_plays_no_tricks():
    evil = {"pid": 5, "command": "\x1b]0;x\x07vi", "path": "/srv/\x1b[2Jdata\nfile", "how": "fd", "started": 1}
    (holder,) = openfiles._parse(json.dumps(evil) + "\n").holders
    assert (holder.command, holder.path) == ("?]0;x?vi", "/srv/?[2Jdata file")


@pytest.fixture
def server() -> Iterator[Scripted]:
    """What stands at the endpoint."""
    with scripted_server() as fake:
        yield fake


def test_errors_quote_no_secret_whatever_quotes_it_to_us(server: Scripted, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAFAKE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    quoted = f"should have been 'POST\nhost:x\nx-amz-security-token:{TOKEN}' with {SECRET}"
    server.script.append((403, refusal("SignatureDoesNotMatch\x1b[2J".replace("\x1b", "&#155;"), quoted)))
    with pytest.raises(Ec2Error) as refused:
        Ec2("eu-west-1").ask("DescribeVolumes", {})
    said = f"{refused.value} {refused.value.message} {refused.value.hint}"
    assert "SignatureDoesNotMatch" in said
    assert "(not shown)" in said
    assert said.isprintable()
    assert SECRET not in said
    assert TOKEN not in said
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN + "\n")
    with pytest.raises(Ec2Error, match=r"\(not shown\)") as refused:
        Ec2("eu-west-1").ask("DescribeVolumes", {})
    assert TOKEN not in str(refused.value)
    endpoint = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://user:{SECRET}@127.0.0.1:1"}
    with pytest.raises(MetadataError) as unheard:
        Metadata(endpoint).region()
    assert SECRET not in unheard.value.message


def _quote() -> None:
    """Break as http.client does, because of something that names a secret too."""
    raise ValueError(f"Invalid header value b'{SECRET}'") from RuntimeError(TOKEN)


def test_a_traceback_in_the_log_quotes_none_either(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    logger = logging.getLogger("awsha")
    before = list(logger.handlers)
    log_to_stderr(verbose=True)
    try:
        try:
            _quote()
        except ValueError:
            Journal().broken(GROUP)
        assert logging.getLogger("botocore").getEffectiveLevel() > logging.DEBUG, "its DEBUG tells signed requests"
    finally:
        for handler in set(logger.handlers) - set(before):
            logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    said = capfd.readouterr().err
    assert "ValueError: Invalid header value (not shown)" in said
    assert SECRET not in said
    assert TOKEN not in said
