"""Which mount options this kernel refuses for a type of file system, asked without a mount: fsopen(2), fsconfig(2).

A context of the new mount interface takes option by option and refuses what the file system does not know; it is never
made into a mount. Only file systems that use that interface look at once (ext4 since Linux 5.17, xfs since 5.6); others
refuse nothing here. What mount(8) keeps for itself, or turns into flags, never comes to the file system.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Mapping

from awsha.core.model import Unknown
from awsha.host.run import DIRECTORIES

_FSOPEN, _FSCONFIG = 430, 431  # on every architecture (asm-generic/unistd.h)
_CLOEXEC, _SET_FLAG, _SET_STRING = 1, 0, 1  # linux/mount.h
# mount(8), "Filesystem-independent mount options": of user space, and flags of the mount.
_OWN = frozenset({
    "defaults", "auto", "noauto", "user", "nouser", "users", "nousers", "owner", "noowner", "group", "nogroup",
    "_netdev", "nofail", "loop", "offset", "sizelimit", "helper", "uhelper", "comment", "shared", "rshared",
    "private", "rprivate",
    "slave", "rslave", "unbindable", "runbindable", "rw", "context", "fscontext", "defcontext",
    "rootcontext", "seclabel",
})  # fmt: skip
_FLAGS = frozenset({
    "async", "sync", "dirsync", "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime",
    "nostrictatime", "lazytime", "nolazytime", "dev", "nodev", "exec", "noexec", "suid", "nosuid", "symfollow",
    "nosymfollow", "iversion", "noiversion", "mand", "nomand", "silent", "loud",
})  # fmt: skip
_FLAG_VALUES = frozenset({"", "recursive", "vfs", "fs"})  # the latter with util-linux 2.39 or newer
# What is told of the disk only at the mount itself.
_READ_ONLY = {("xfs", "norecovery"): "xfs takes it with a read-only mount only"}


def refused(fstype: str, options: str) -> Mapping[str, str] | Unknown | None:
    """The options that would be refused, with the reason; None when this kernel has no such file system.

    Unknown when it cannot be asked (no root, an old kernel). Changes nothing; may load the file system's module, as a
    mount does. One file descriptor, no wait.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    context = libc.syscall(_FSOPEN, fstype.encode(), _CLOEXEC)
    if context < 0:
        code = ctypes.get_errno()
        helper = shutil.which(f"mount.{fstype}", path=":".join(DIRECTORIES))  # which may mount by other means
        return None if code == errno.ENODEV and not helper else Unknown(os.strerror(code))
    try:
        found = {}
        for option in filter(_asked, options.split(",")):
            name, sign, value = option.partition("=")
            command, word = (_SET_STRING, value.encode()) if sign else (_SET_FLAG, None)
            if (fstype, name) in _READ_ONLY:
                found[option] = _READ_ONLY[fstype, name]
            elif libc.syscall(_FSCONFIG, context, command, name.encode(), word, 0) < 0:
                code = ctypes.get_errno()
                found[option] = _said(context) or os.strerror(code)
        return found
    finally:
        os.close(context)


def _asked(option: str) -> bool:
    """Whether an option is the file system's own."""
    name, _, value = option.partition("=")
    if not name or name in _OWN or name.lower().startswith("x-") or '"' in option:
        return False
    return name not in _FLAGS or value not in _FLAG_VALUES


def _said(context: int) -> str:
    """The last message of the kernel about a context, without its level."""
    text = ""
    try:
        while said := os.read(context, 4096):
            text = said.decode("utf-8", "replace").strip().partition(" ")[2]
    except OSError:  # ENODATA: that was all
        pass
    return text
