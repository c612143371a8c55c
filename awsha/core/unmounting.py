"""How a file system is unmounted, and what is done about those who keep it busy."""

from __future__ import annotations

from awsha.core.model import Mount
from awsha.core.policy import OpenFiles
from awsha.core.situation import Code, Draft, HolderList
from awsha.core.steps import Failure, ListHolders, Scope, Signal, Unmount

HOLDERS_LOOK_S = 0.25
HOLDERS_LOOK_SLOW_S = 1.0


def unmount(draft: Draft, vid: str, mounts: tuple[Mount, ...], *, lost: bool) -> None:
    """Unmount; when something holds the file system, find out what, and do what the policy says."""
    s = draft.s
    tried = s.past(Unmount, vid)
    if lost:
        _unmount_lost(draft, vid, mounts)
        return
    if tried is None or tried.ok or tried.failure not in (Failure.BUSY, Failure.TIMEOUT):
        draft.step(Unmount(vid, mounts))
        return
    listed = s.memory.holders.get(vid)
    signalled = s.past(Signal, vid)
    if listed is None or listed.at < tried.at or (signalled is not None and listed.at < signalled.at):
        draft.step(ListHolders(vid, mounts))
    elif not listed.holders:
        draft.step(Unmount(vid, mounts))
    else:
        _clear_holders(draft, vid, mounts, listed)


def _unmount_lost(draft: Draft, vid: str, mounts: tuple[Mount, ...]) -> None:
    """Nothing can be saved on a disk that is gone, and asking it may hang: one honest try, an end of those who keep it
    busy (there is nothing that they could still write), then the tree is taken out whatever holds it."""
    s = draft.s
    tried, listed, signalled = s.past(Unmount, vid), s.memory.holders.get(vid), s.past(Signal, vid)
    if tried is None or tried.ok:
        draft.step(Unmount(vid, mounts))
        return
    asked = s.past(ListHolders, vid)
    lazy_already = isinstance(tried.step, Unmount) and tried.step.lazy
    if lazy_already or tried.failure not in (Failure.BUSY, Failure.TIMEOUT) or s.group.open_files is OpenFiles.WAIT:
        draft.step(Unmount(vid, mounts, lazy=True))
    elif listed is not None and listed.at >= tried.at:
        if listed.holders and (signalled is None or signalled.at < tried.at):
            draft.step(Signal(vid, listed.holders, mounts, kill=True))
        else:
            draft.step(Unmount(vid, mounts, lazy=True))
    elif asked is not None and asked.at >= tried.at:  # they can't be listed, and nobody waits for that
        draft.step(Unmount(vid, mounts, lazy=True))
    else:
        draft.step(ListHolders(vid, mounts))


def _clear_holders(draft: Draft, vid: str, mounts: tuple[Mount, ...], listed: HolderList) -> None:
    """The `open_files` policy."""
    s, policy, term_s = draft.s, draft.s.group.open_files, draft.s.group.timeouts.term_s
    names = ", ".join(f"{h.command}[{h.pid}] {h.how} {h.path}" for h in listed.holders[:5])
    more = len(listed.holders) - 5
    text = f"{mounts[-1].target} is in use by {names}" + (f" and {more} more" if more > 0 else "")
    look_again = HOLDERS_LOOK_SLOW_S if policy is OpenFiles.WAIT else HOLDERS_LOOK_S
    if s.now - listed.at >= look_again:
        draft.step(ListHolders(vid, mounts))
    if policy is OpenFiles.WAIT:
        draft.block(
            Code.OPEN_FILES,
            vid,
            text,
            f'stop them (kill {" ".join(str(h.pid) for h in listed.holders[:5])}), or set open_files = "terminate"',
            Scope.DISKS,
        )
        return
    first_term = s.memory.term_sent.get(vid)
    kill = policy is OpenFiles.KILL or (first_term is not None and s.now - first_term >= term_s)
    signalled = s.past(Signal, vid)
    fresh = isinstance(signalled.step, Signal) and signalled.step.kill == kill if signalled is not None else False
    if signalled is None or not fresh or s.now - signalled.at >= term_s:
        draft.step(Signal(vid, listed.holders, mounts, kill))
    draft.wait(
        Code.OPEN_FILES,
        vid,
        text + (": killed" if kill else ": asked to end"),
        Scope.DISKS,
        for_s=None if kill else term_s,
    )
