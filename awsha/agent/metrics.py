"""What Prometheus is told: how each group is, how long transitions took, what EC2 was asked and answered.

The text is Prometheus' own exposition format, which needs no library to be written. It goes to a file for
node_exporter's textfile collector, and to whoever asks a port of this machine, when the configuration says so.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from awsha import __version__
from awsha.core import handover
from awsha.core.loop import Turn
from awsha.core.model import Role
from awsha.core.plan import PAUSED, RELEASED
from awsha.core.policy import Metrics
from awsha.core.readiness import READY, SERVING, word
from awsha.core.transition import Transition
from awsha.core.volumes import FENCED, mounted_live

BUCKETS_S = (0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0)
EVERY_S = 15.0  # the file is written at least so often: its time tells that the agent lives
BETWEEN_S = 1.0  # and at most so often
ROLES = (*(role.value for role in Role), "none")
GOALS = ("master", "release", "look")

# name -> (type, help). Every metric there is: the dashboard and the rules in conf/ are checked against this table.
METRICS: Mapping[str, tuple[str, str]] = {
    "awsha_info": ("gauge", "Version of the agent and name of this node; always 1."),
    "awsha_written_timestamp_seconds": ("gauge", "When this was told, in Unix seconds."),
    "awsha_group_role": ("gauge", "1 for the role that keepalived said last, 0 for the others."),
    "awsha_group_goal": ("gauge", "1 for what the group works for: master, release or look; 0 for the others."),
    "awsha_group_converged": ("gauge", "1 when the goal is reached and nothing waits."),
    "awsha_group_serving": ("gauge", "1 when everything is mounted, addressed and running on this node."),
    "awsha_group_healthy": ("gauge", "0 when keepalived is told to leave mastership."),
    "awsha_group_ready": ("gauge", "1 when the group serves here, or would be taken over here if the master died now."),
    "awsha_group_fenced": ("gauge", "1 when another node has taken the volume of this one."),
    "awsha_group_paused": ("gauge", "1 when an operator has paused the group here."),
    "awsha_group_released": ("gauge", "1 when an operator has released the group here."),
    "awsha_group_volumes": ("gauge", "Volumes of the group."),
    "awsha_group_volumes_held": ("gauge", "Volumes of the group that are mounted on this node."),
    "awsha_group_waiting_seconds": ("gauge", "For how long the group waits, by why (code); blocked: needs somebody."),
    "awsha_group_last_transition_timestamp_seconds": ("gauge", "When the last transition began, in Unix seconds."),
    "awsha_group_last_transition_duration_seconds": ("gauge", "How long the last transition took, by how it ended."),
    "awsha_transition_duration_seconds": ("histogram", "How long transitions took, by goal and by how they ended."),
    "awsha_ec2_requests_total": ("counter", "Requests to EC2 by action and code (ok, or the error)."),
    "awsha_ec2_request_seconds_total": ("counter", "Seconds that requests to EC2 took, by action."),
    "awsha_notifications_total": ("counter", "Notices by how (command, sns) and by how that ended (ok, failed)."),
}

Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    total: float = 0.0


class Tally:
    """What adds up while the agent runs. Thread-safe."""

    def __init__(self) -> None:
        """Nothing has happened."""
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str]] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._durations: defaultdict[tuple[str, str, str], _Histogram] = defaultdict(_Histogram)
        self._last: dict[str, Transition] = {}
        self._notices: Counter[tuple[str, str]] = Counter()
        self.changed = threading.Event()

    def request(self, action: str, seconds: float, code: str) -> None:
        """A request to EC2 has ended."""
        with self._lock:
            self._requests[action, code] += 1
            self._seconds[action] += seconds

    def transition(self, transition: Transition) -> None:
        """A transition has a new line."""
        if not transition.open:
            with self._lock:
                histogram = self._durations[transition.group, transition.goal, transition.end.value]
                histogram.counts[bisect_left(BUCKETS_S, transition.took)] += 1
                histogram.total += transition.took
                self._last[transition.group] = transition
        self.changed.set()

    def ways(self, ways: Iterable[str]) -> None:
        """How notices are sent here: told from the beginning on, or the first that fails would be no increase."""
        with self._lock:
            self._notices.update({(by, code): 0 for by in ways for code in ("ok", "failed")})

    def notified(self, by: str, code: str) -> None:
        """A notice was sent, or was not."""
        with self._lock:
            self._notices[by, code] += 1
        self.changed.set()

    def remember(self, transition: Transition | None) -> None:
        """The newest transition from before this process began, unless a newer one has ended meanwhile."""
        if transition is not None and not transition.open:
            with self._lock:
                self._last.setdefault(transition.group, transition)

    def samples(self) -> Iterable[tuple[str, Labels, float]]:
        """(name, labels, value) of everything that adds up."""
        with self._lock:
            for (action, code), count in sorted(self._requests.items()):
                yield "awsha_ec2_requests_total", (("action", action), ("code", code)), count
            for action, seconds in sorted(self._seconds.items()):
                yield "awsha_ec2_request_seconds_total", (("action", action),), seconds
            for (by, code), count in sorted(self._notices.items()):
                yield "awsha_notifications_total", (("by", by), ("code", code)), count
            for group, last in sorted(self._last.items()):
                where = (("group", group),)
                yield "awsha_group_last_transition_timestamp_seconds", where, last.began
                ended = (*where, ("end", last.end.value))
                yield "awsha_group_last_transition_duration_seconds", ended, last.took
            for (group, goal, end), histogram in sorted(self._durations.items()):
                yield from _histogram((("group", group), ("goal", goal), ("end", end)), histogram)


def _histogram(labels: Labels, histogram: _Histogram) -> Iterable[tuple[str, Labels, float]]:
    name, count = "awsha_transition_duration_seconds", 0
    for bound, more in zip((*(f"{b:g}" for b in BUCKETS_S), "+Inf"), histogram.counts, strict=True):
        count += more
        yield f"{name}_bucket", (*labels, ("le", bound)), count
    yield f"{name}_sum", labels, histogram.total
    yield f"{name}_count", labels, count


def group_samples(turn: Turn) -> Iterable[tuple[str, Labels, float]]:
    """(name, labels, value) of how a group is, by its loop's last turn."""
    s, plan = turn.situation, turn.plan
    where: Labels = (("group", s.group.name),)
    role = s.intent.role.value if s.intent else "none"
    for name in ROLES:
        yield "awsha_group_role", (*where, ("role", name)), name == role
    for name in GOALS:
        yield "awsha_group_goal", (*where, ("goal", name)), name == plan.goal
    held = sum(mounted_live(s.disk(volume.id or "")) for volume in s.group.volumes)
    for name, value in (
        ("converged", plan.done),
        ("serving", plan.goal == "master" and plan.ready),
        ("healthy", turn.verdict.ok),
        ("ready", word(s, plan, turn.verdict) in (READY, SERVING)),
        ("fenced", FENCED in s.host.marks),
        ("paused", PAUSED in s.host.marks),
        ("released", RELEASED in s.host.marks or bool(handover.under_way(s.host.marks))),
        ("volumes", len(s.group.volumes)),
        ("volumes_held", held),
    ):
        yield f"awsha_group_{name}", where, value
    waits: dict[tuple[str, bool], float] = {}
    for reason in plan.reasons:
        key = (reason.code.value, reason.blocked)
        waits[key] = max(waits.get(key, 0.0), s.now - s.memory.since.get((reason.code, reason.subject), s.now))
    for (code, blocked), seconds in sorted(waits.items()):
        labels = (*where, ("code", code), ("blocked", str(blocked).lower()))
        yield "awsha_group_waiting_seconds", labels, seconds


def text(samples: Iterable[tuple[str, Labels, float]]) -> str:
    """The exposition format: samples of one metric stand together, behind their type."""
    families: dict[str, list[str]] = {name: [] for name in METRICS}
    for name, labels, value in samples:
        family = name if name in METRICS else name.rpartition("_")[0]  # _bucket, _sum, _count
        inside = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels)
        families[family].append(f"{name}{{{inside}}} {float(value):.15g}\n" if inside else f"{name} {value:.15g}\n")
    return "".join(
        f"# HELP {name} {METRICS[name][1]}\n# TYPE {name} {METRICS[name][0]}\n{''.join(lines)}"
        for name, lines in families.items()
        if lines
    )


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class Exporter:
    """Tells it, from threads of its own, to the file and to the port that are configured."""

    def __init__(
        self, wanted: Metrics, node: str, tally: Tally, turns: Callable[[], Iterable[Turn]], say: Callable[[str], None]
    ) -> None:
        """`turns`: the last turn of each group. `say`: what is to be logged."""
        self._wanted = wanted
        self._node = node
        self._tally = tally
        self._turns = turns
        self._say = say
        self._failing = False

    def told(self) -> str:
        """Everything, as it is now."""

        def samples() -> Iterable[tuple[str, Labels, float]]:
            yield "awsha_info", (("node", self._node), ("version", __version__)), 1
            yield "awsha_written_timestamp_seconds", (), round(time.time(), 3)
            for turn in self._turns():
                yield from group_samples(turn)
            yield from self._tally.samples()

        return text(samples())

    def start(self, stop: threading.Event) -> None:
        """Begin; nothing of a failover waits for it, and it ends with the process."""
        if self._wanted.textfile is not None:
            target, file = self._keep_writing, Path(self._wanted.textfile)
            threading.Thread(target=target, args=(file, stop), name="metrics", daemon=True).start()
        if self._wanted.port:
            threading.Thread(target=self._serve, args=(self._wanted.port,), name="metrics-port", daemon=True).start()

    def _keep_writing(self, file: Path, stop: threading.Event) -> None:
        while not stop.is_set():
            self._tally.changed.clear()
            self.write(file)
            if stop.wait(BETWEEN_S):
                return
            self._tally.changed.wait(EVERY_S - BETWEEN_S)

    def write(self, file: Path) -> None:
        """Replace the file in one step; what goes wrong is said once."""
        try:
            replace(file, self.told())
        except Exception as error:  # noqa: BLE001  no metric is worth an agent
            if not self._failing:
                self._say(f"{file} can't be written: {error}")
            self._failing = True
        else:
            self._failing = False

    def _serve(self, port: int) -> None:
        try:
            from awsha.agent.metrics_port import serve

            serve(port, self.told)
        except Exception as error:  # noqa: BLE001
            self._say(f"port {port} on 127.0.0.1 can't be served: {error}")


def replace(file: Path, content: str) -> None:
    """Write a file that everybody may read, over whatever is in its place; follows no link. Raises OSError.

    The directory may be another user's, who could put something in the way of the new file: that is removed, not used.
    """
    temporary = f".{file.name}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    directory = os.open(file.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # the same one for all that follows
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                os.fchmod(stream.fileno(), 0o644)
                stream.write(content)
            os.rename(temporary, file.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=directory)
            raise
    finally:
        os.close(directory)
