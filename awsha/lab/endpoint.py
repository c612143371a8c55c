"""The EC2 endpoint: actions with rules go to the Region, all others to moto, and the region's clock ticks here."""

from __future__ import annotations

import logging
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from itertools import count
from time import monotonic
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from awsha.lab.breadth import Moto, scope
from awsha.lab.query import Query, error_document, query_error_document
from awsha.lab.records import Ec2Error, Effect, Params, Reply
from awsha.lab.rules import RULES, Region
from awsha.lab.wire import Request, Response, Server, start_thread
from awsha.lab.world import Holds

log = logging.getLogger(__name__)

KEPT_REQUESTS = 10_000
LOST_REPLY, BLACK_HOLE = "(lost reply)", "(black hole)"
_LONGEST_NAP_S = 1.0
_RULED_PREFIXES = ("vol-", "i-", "eni-")
_XML = {"Content-Type": "text/xml;charset=UTF-8"}


@dataclass(frozen=True, slots=True)
class Record:
    """One request. `time` is on the region's clock; `action` is `service:Action` outside EC2.

    `code`: empty for success, the error's code, LOST_REPLY or BLACK_HOLE. `duration_s` includes the played latency.
    """

    time: float
    action: str
    caller: str | None
    code: str
    duration_s: float


@dataclass(slots=True)
class _Call:
    """A request on its way through."""

    request: Request
    service: str
    region: str
    form: dict[str, str]
    action: str
    caller: str | None
    request_id: str


class Endpoint:
    """Serves the region over HTTP, and turns what happens in it into effects.

    `now` is the region's clock in seconds. `lock` guards the region; whoever else changes the region holds it, and
    calls `wake` afterwards. `on_effects` gets the effects in order, from one thread that holds no lock: what it does
    delays the effects behind it, not the API. `holds(instance_id, volume_id)` is called with the lock held.
    `identify(address)` tells a caller (an instance id, or None) by the source address of its connection.
    """

    def __init__(
        self,
        region: Region,
        now: Callable[[], float],
        lock: threading.Lock | threading.RLock,
        on_effects: Callable[[list[Effect]], None],
        *,
        holds: Holds = lambda _instance_id, _volume_id: False,
        identify: Callable[[str], str | None] | None = None,
    ) -> None:
        self.region = region
        self.requests: deque[Record] = deque(maxlen=KEPT_REQUESTS)
        # A lab sets these (scenery): who may call what (raises Ec2Error), what a reply shows, and EC2's wrong clock.
        self.authorize: Callable[[str | None, str, Params], None] = lambda _caller, _action, _params: None
        self.alter: Callable[[Reply], Reply] = lambda reply: reply
        self.ahead_s: Callable[[], float] = lambda: 0.0
        self.counts: Counter[tuple[str, str]] = Counter()  # (action, code) -> how often, since the start
        self._now = now
        self._changed = threading.Condition(lock)
        self._on_effects = on_effects
        self._holds = holds
        self._identify = identify or region.instance_at
        self._effects: list[Effect] = []
        self._query = Query()
        self._moto = Moto(region.name, region.world.subnets)
        self._ids = count(1)
        self._server = Server("ec2", self._handle)
        self._clock = start_thread("ec2-clock", self._tick)

    def serve(self, listening: socket.socket) -> None:
        """Answer on this listening socket from now on, and own it; returns at once. Any number of sockets will do."""
        self._server.serve(listening)

    def stop(self, deadline_s: float = 2.0) -> bool:
        """End all connections and threads; True when they have ended within `deadline_s` seconds."""
        end = monotonic() + deadline_s
        self._server.stopping.set()
        self.wake()
        ended = self._server.stop(deadline_s)
        if self._clock is not threading.current_thread():
            self._clock.join(max(0.0, end - monotonic()))
        return ended and not self._clock.is_alive()

    def wake(self) -> None:
        """The region was changed, or its clock jumped: look at it now. Takes the lock."""
        with self._changed:
            self._changed.notify_all()

    # The clock

    def _advance(self) -> float:
        """With the lock held: do what is due. Returns the time it is."""
        now = self._now()
        due = self.region.next_due()
        if due is not None and due <= now:
            self._effects += self.region.advance(now, self._holds)
        return now

    def _tick(self) -> None:
        while not self._server.stopping.is_set():
            with self._changed:
                now = self._advance()
                effects, self._effects = self._effects, []
                if not effects:
                    due = self.region.next_due()
                    nap_s = _LONGEST_NAP_S if due is None else min(_LONGEST_NAP_S, max(0.0, due - now))
                    self._changed.wait(nap_s)
            if effects:
                try:
                    self._on_effects(effects)
                except Exception:  # the clock must go on, whatever the machine's side of it does
                    log.exception("effects failed: %s", effects)

    # Requests

    def _handle(self, request: Request) -> Response | None:
        started = monotonic()
        call = self._read(request)
        code = ""
        try:
            with self._changed:
                time = self._now()
                transport = self.region.transport(call.action, time, call.caller, call.form)
            if transport.black_hole:
                code = BLACK_HOLE
                request.hang()
                return None
            if transport.delay_s and self._server.stopping.wait(transport.delay_s):
                code = LOST_REPLY
                return None  # the endpoint ends before the request arrived
            try:
                response = self._answer(call)
            except Ec2Error as error:
                code = error.code
                response = Response(error.http_status, self._refusal(call, error), _XML)
            date = formatdate(self.region.world.epoch + time + self.ahead_s(), usegmt=True)
            response.headers = {**response.headers, "Date": date}
            if transport.drop_reply:
                code = LOST_REPLY
                return None
            return response
        finally:
            self.requests.append(Record(time, call.action, call.caller, code, monotonic() - started))
            self.counts[call.action, code] += 1

    def _refusal(self, call: _Call, error: Ec2Error) -> bytes:
        """EC2's document, or that of the other services of the query protocol."""
        document = error_document if call.service == "ec2" else query_error_document
        return document(error, call.request_id)

    def _read(self, request: Request) -> _Call:
        parts = urlsplit(request.path)
        text = parts.query
        kind = request.headers.get("content-type", "")
        if kind.startswith("application/x-www-form-urlencoded"):
            text = request.body.decode("utf-8", "replace")
        form = dict(parse_qsl(text, keep_blank_values=True))
        region, service = scope(request.headers, form)
        action = form.get("Action", "")
        if service != "ec2":
            target = request.headers.get("x-amz-target", "").rpartition(".")[2]
            action = f"{service}:{action or target or parts.path.rpartition('/')[2]}"
        request_id = f"00000000-0000-4000-8000-{next(self._ids):012x}"
        return _Call(request, service, region, form, action, self._identify(request.peer), request_id)

    def _answer(self, call: _Call) -> Response:
        if call.service != "ec2":
            if call.service == "sns":  # the one other service that awsha itself speaks to
                self.authorize(call.caller, call.action, call.form)
            with self._changed:
                self.region.admit(call.action, {}, self._now(), call.caller)
            return self._pass_on(call, call.request.body)
        if call.action in RULES:
            params = self._query.decode(call.action, call.form)
            self.authorize(call.caller, call.action, params)
            strange = _strangers(params) if call.action in ("CreateTags", "DeleteTags") else []
            if not strange:
                reply = self._rule(call, params)
                if call.action == "DescribeTags" and self._moto.loaded:
                    reply = {**reply, "Tags": reply["Tags"] + self._motos_tags(call)}
                return Response(200, self._query.encode(call.action, reply, call.request_id), _XML)
            return self._tag_strangers(call, params, strange)
        if not self._query.knows(call.action):
            raise Ec2Error("InvalidAction", f"The action {call.action} is not valid for this web service.")
        params = self._query.decode(call.action, call.form)
        self.authorize(call.caller, call.action, params)
        with self._changed:
            self.region.admit(call.action, params, self._now(), call.caller)
        return self._pass_on(call, call.request.body)

    def _rule(self, call: _Call, params: Params) -> Reply:
        """One call of the region, after what was due before it."""
        with self._changed:
            now = self._advance()
            try:
                return self.alter(self.region.call(call.action, params, now, call.caller))
            finally:
                self._changed.notify_all()

    def _tag_strangers(self, call: _Call, params: Params, strange: list[str]) -> Response:
        """Tags on what moto keeps; what the region keeps comes first, so that a refusal there changes nothing."""
        ours = [name for name in params["Resources"] if name not in strange]
        if ours:
            self._rule(call, {**params, "Resources": ours})
        kept = {key: value for key, value in call.form.items() if not key.lower().startswith("resourceid.")}
        kept |= {f"ResourceId.{index}": name for index, name in enumerate(strange, 1)}
        return self._pass_on(call, urlencode(kept).encode())

    def _motos_tags(self, call: _Call) -> list[dict[str, Any]]:
        from botocore.parsers import create_parser

        response = self._pass_on(call, call.request.body)
        answer = {"status_code": response.status, "headers": response.headers, "body": response.body}
        parser: Any = create_parser("ec2")
        tags: list[dict[str, Any]] = parser.parse(answer, self._query.output_shape(call.action)).get("Tags", [])
        return [tag for tag in tags if not tag["ResourceId"].startswith(_RULED_PREFIXES)]

    def _pass_on(self, call: _Call, body: bytes) -> Response:
        if call.service == "ec2" and call.form.get("DryRun", "").lower() == "true":
            # moto executes some of them
            raise Ec2Error("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
        return self._moto.handle(call.service, call.region, call.request, body)


def _strangers(params: Params) -> list[str]:
    return [name for name in params.get("Resources") or () if not name.startswith(_RULED_PREFIXES)]
