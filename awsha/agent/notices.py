"""Tells somebody when a transition has ended: a program, an SNS topic, or both (docs/notify.md).

After the work, and never in its way: a thread for each, a bound for each try, and what fails is a line in the log.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from awsha.config.machine import hook_refused
from awsha.core.errors import AwshaError
from awsha.core.notice import Notice, notice
from awsha.core.policy import Notify
from awsha.core.transition import Transition
from awsha.host.clock import boottime
from awsha.host.run import CREDENTIALS, DIRECTORIES, failure, run

COMMAND_S = 30.0
PUBLISH_S = 15.0  # a program that starts, and a request with both of its time-outs
PAUSES_S = (0.0, 3.0, 15.0)  # before each try to reach SNS: a network that was cut may need a moment
QUEUE_MOST = 50
REMEMBERED = 200
COMMAND, TOPIC = "command", "sns"
Send = Callable[[Notice], None]
Count = Callable[[str, str], None]  # (by what, "ok" or "failed")


class Notifier:
    """Whoever is to be told. `transition` may be called from any thread, and never waits."""

    def __init__(
        self,
        wanted: Notify,
        say: Callable[[str, str], None],
        count: Count = lambda _by, _code: None,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        """`say(group, text)`: what is to be logged. `count`: what is to be counted. `pauses_s`: before each publish."""
        self._stop = threading.Event()
        self._known: deque[str] = deque(maxlen=REMEMBERED)
        ways: dict[str, Send] = {}
        if wanted.command:
            ways[COMMAND] = lambda told: tell_command(wanted.command, told, self._stop.is_set)
        if wanted.sns_topic is not None:
            ways[TOPIC] = _patient(wanted.sns_topic, pauses_s, self._stop)
        self.ways = tuple(ways)
        self._channels = [_Channel(by, send, say, count, self._stop) for by, send in ways.items()]

    def transition(self, transition: Transition) -> None:
        """A transition has a new line."""
        told = notice(transition) if self._channels else None
        if told is None or told.id in self._known:
            return
        self._known.append(told.id)
        for channel in self._channels:
            channel.put(told)

    def close(self, timeout_s: float) -> None:
        """Have what waits sent, for so long at most, and end: what is not sent by then is not."""
        deadline = boottime() + timeout_s
        for channel in self._channels:
            channel.end()
        for channel in self._channels:
            channel.join(max(0.0, deadline - boottime()))
        self._stop.set()


class _Channel:
    """One way to tell, with a thread that exists from the first notice on."""

    def __init__(
        self, by: str, send: Send, say: Callable[[str, str], None], count: Count, stop: threading.Event
    ) -> None:
        self._by, self._send, self._say, self._count, self._stop = by, send, say, count, stop
        self._notices: queue.SimpleQueue[Notice | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, told: Notice) -> None:
        """Have it sent."""
        if self._notices.qsize() >= QUEUE_MOST:
            self._failed(told, "too many wait to be sent already")
            return
        self._notices.put(told)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"notify-{self._by}", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Nothing more comes."""
        self._notices.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait until everything is sent."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _work(self) -> None:
        while (told := self._notices.get()) is not None and not self._stop.is_set():
            try:
                self._send(told)
            except AwshaError as error:
                self._failed(told, error.message + (f" (hint: {error.hint})" if error.hint else ""))
            except Exception as error:  # noqa: BLE001  no notice is worth an agent
                self._failed(told, f"{type(error).__name__}: {error}")
            else:
                self._count(self._by, "ok")

    def _failed(self, told: Notice, why: str) -> None:
        self._count(self._by, "failed")
        self._say(told.transition.group, f"nobody was told of `{told.event}` by {self._by}: {why}")


def tell_command(command: Sequence[str], told: Notice, give_up: Callable[[], bool] | None = None) -> None:
    """Run the operator's program, with the notice as JSON on its standard input. Raises AwshaError.

    `give_up`: asked while it runs; once it says True the program is ended.
    """
    refuse(command[0])
    t = told.transition
    environment = {
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PATH": ":".join(DIRECTORIES),
        "AWSHA_EVENT": told.event.value,
        "AWSHA_GROUP": t.group,
        "AWSHA_NODE": t.node,
        "AWSHA_TEXT": told.text,
        "AWSHA_TRANSITION": t.id,
        "AWSHA_TOOK_S": f"{t.took:.2f}",
    }
    content = json.dumps(told.as_dict()).encode() + b"\n"
    # through env(1), as with hooks: an exec from a lost disk hangs there, where it can be given up
    run(["env", "-C", "/", "--", *command], COMMAND_S, input=content, env=environment, clean=True, give_up=give_up)


def refuse(program: str) -> None:
    """Raise AwshaError when this program must not be run as root, or can't be."""
    if refused := hook_refused(Path(program)):
        raise AwshaError(f"{program} is not run: {refused[0]}", hint=refused[1])
    if "=" in program:
        raise AwshaError(f"{program} is not run: env(1) can't take a path with '='", hint="rename it")


def tell_topic(topic: str, told: Notice, give_up: Callable[[], bool] | None = None) -> None:
    """Publish it, once: the text, and the notice as JSON below. `give_up` as with a program. Raises AwshaError."""
    content = {
        "topic": topic,
        "subject": told.subject,
        "text": f"{told.text}\n\n{json.dumps(told.as_dict(), indent=2)}\n",
        "group": told.transition.group,
        "once": told.id.replace(":", "-"),
    }
    # -P: nothing is imported from wherever this process stands
    argv = [sys.executable, "-P", "-m", "awsha.aws.sns"]
    own = {name: value for name, value in os.environ.items() if name in CREDENTIALS}  # it is awsha, and signs as awsha
    done = run(argv, PUBLISH_S, check=False, input=json.dumps(content).encode(), give_up=give_up, env=own)
    if done.returncode == 0:
        return
    try:
        message, hint = json.loads(done.stdout)
    except ValueError:
        raise failure(argv, done) from None
    raise AwshaError(str(message), hint=str(hint))


def _patient(topic: str, pauses_s: Sequence[float], stop: threading.Event) -> Send:
    """Publish with a few tries."""

    def send(told: Notice) -> None:
        last: AwshaError | None = None
        for pause_s in pauses_s:
            if stop.wait(pause_s):
                break
            try:
                tell_topic(topic, told, stop.is_set)
            except AwshaError as error:
                last = error
            else:
                return
        raise last or AwshaError("awsha is stopping")

    return send
