"""One EC2 request: the client, its time-outs, the typed error, the count, and the backoff when EC2 throttles."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from awsha.aws.errors import Ec2Error, Kind, out_of_time, typed
from awsha.aws.model import OPERATIONS

if TYPE_CHECKING:
    from botocore.client import BaseClient

CONNECT_TIMEOUT_S = 1.0
READ_TIMEOUT_S = 5.0
CONNECTIONS = 24  # a takeover of 8 volumes and the looks of 4 groups side by side, each on a warm connection
BACKOFF_FIRST_S = 0.1
BACKOFF_MOST_S = 2.0

# botocore's name for a connection that the other side gave up while it was idle, or before it answered.
_CLOSED = "ConnectionClosedError"
# DescribeVolumes -> describe_volumes, as botocore names its methods.
_METHODS = {action: re.sub(r"(?<!^)(?=[A-Z])", "_", action).lower() for action in OPERATIONS}

Observer = Callable[[str, float, str], None]  # (action, seconds, "ok" or the error code)


class Caller:
    """Makes requests to EC2 of one region. Thread-safe. The client is made at the first request.

    `observer` is told of every request, from the thread that made it, and must be quick. `requests` counts requests by
    action, `throttled` those that EC2 throttled.
    """

    def __init__(
        self,
        region: str,
        *,
        observer: Observer | None = None,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
        connections: int = CONNECTIONS,
    ) -> None:
        self.region = region
        self.requests: Counter[str] = Counter()
        self.throttled = 0
        self._observer = observer
        self._timeouts = (connect_timeout_s, read_timeout_s)
        self._connections = connections
        self._client: BaseClient | None = None
        self._making = threading.Lock()
        self._counting = threading.Lock()
        self._closing = threading.Event()

    def call(self, action: str, params: dict[str, Any], timeout_s: float, *, once: bool = False) -> dict[str, Any]:
        """One request; more than one only for throttling (not with `once`: the caller must look again before it asks
        again), or for a read whose idle connection had been closed.

        `timeout_s` bounds the tries. A request that was sent lasts at most the connect and read time-outs (and the
        resolver's, for a name that does not resolve). Returns botocore's parsed reply. Raises only Ec2Error.
        """
        deadline = time.monotonic() + timeout_s
        try:
            return self._once(action, params, deadline)
        except Ec2Error as error:
            if error.kind is Kind.THROTTLED and not once:
                return self._backed_off(action, params, deadline, error)
            if error.code == _CLOSED and action.startswith("Describe"):
                return self._once(action, params, deadline)
            raise

    def close(self) -> None:
        """End backoffs, refuse new requests, and close the idle connections."""
        self._closing.set()
        with self._making:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _backed_off(self, action: str, params: dict[str, Any], deadline: float, first: Ec2Error) -> dict[str, Any]:
        """Ask again after growing random pauses (AWS: "Exponential backoff and jitter") until `deadline` or `close`."""
        import tenacity  # costs 60 ms, and most processes are never throttled

        refusals = [first]

        def attempt() -> dict[str, Any]:
            if refusals:
                raise refusals.pop()
            return self._once(action, params, deadline)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_throttled),
            wait=tenacity.wait_random_exponential(multiplier=BACKOFF_FIRST_S, max=BACKOFF_MOST_S),
            stop=tenacity.stop_any(
                tenacity.stop_before_delay(max(0.0, deadline - time.monotonic())),
                tenacity.stop_when_event_set(self._closing),
            ),
            sleep=tenacity.sleep_using_event(self._closing),
            reraise=True,
        )
        return retrying(attempt)

    def _once(self, action: str, params: dict[str, Any], deadline: float) -> dict[str, Any]:
        """Exactly one request. Raises only Ec2Error."""
        started = time.monotonic()
        if started >= deadline:
            raise out_of_time(action)
        if self._closing.is_set():
            raise out_of_time(action, "awsha is stopping")
        try:
            reply: dict[str, Any] = getattr(self._ready(), _METHODS[action])(**params)
        except Exception as raw:
            # All of them: this is the door, and what a parser raises on a mad reply is typed here too.
            error = typed(raw, action)
            self._account(action, started, error)
            if error.kind is Kind.CREDENTIALS:
                self._forget()
            raise error from raw
        self._account(action, started, None)
        return reply

    def _ready(self) -> BaseClient:
        """The client. It is made under a lock, since botocore's sessions are not thread-safe (its clients are)."""
        client = self._client
        if client is not None:
            return client
        with self._making:
            if self._client is None:
                from awsha.aws.client import create_client

                self._client = create_client(self.region, *self._timeouts, self._connections)
            return self._client

    def _forget(self) -> None:
        """Have a new client made for the next request: one that was born without credentials never finds any."""
        with self._making:
            self._client = None

    def _account(self, action: str, started: float, error: Ec2Error | None) -> None:
        seconds = time.monotonic() - started
        with self._counting:
            self.requests[action] += 1
            self.throttled += error is not None and error.kind is Kind.THROTTLED
        if self._observer is not None:
            # Keeping a journal must never stand in the way of a failover.
            with contextlib.suppress(Exception):
                self._observer(action, seconds, error.code if error else "ok")


def _is_throttled(error: BaseException) -> bool:
    return isinstance(error, Ec2Error) and error.kind is Kind.THROTTLED
