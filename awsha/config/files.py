"""Writing a file so that a reader sees the old one or the new one, never a part."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from awsha.core.errors import AwshaError


def write_atomic(path: Path, text: str, mode: int, *, replace: bool = True, folders: bool = True) -> None:
    """Write `text` to `path` with `mode`; the content is on disk before the name appears.

    With `replace=False` an existing file is kept. `folders`: make those that are missing above it. A directory, and a
    symbolic link, are never replaced: whoever made the link meant the file behind it. Raises AwshaError when one of
    these is so, or when it cannot be written.
    """
    if path.is_symlink():
        hint = f"nothing was written; name the file itself: -o {_behind(path)}"
        raise AwshaError(f"{path} is a symbolic link", hint=hint)
    if path.is_dir():
        raise AwshaError(f"{path} is a directory", hint=f"name a file in it: -o {path / 'FILE'}")
    if not folders and not path.parent.exists():
        raise AwshaError(f"there is no directory {path.parent}", hint=f"mkdir -p {path.parent}, or correct -o")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fchmod(stream.fileno(), mode)
                os.fsync(stream.fileno())
            if replace:
                os.replace(temporary, path)  # noqa: PTH105 - one word for what it does
            else:
                os.link(temporary, path)  # fails when the name exists, without a gap between look and act
                os.unlink(temporary)  # noqa: PTH108
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108
            raise
        _sync_directory(path.parent)
    except FileExistsError as error:
        if not error.filename2:  # not the link: something in the path is no directory
            raise AwshaError(f"{path.parent} is not a directory", hint="choose another place with -o") from None
        hint = "add --force to replace it, or -o FILE to write another"
        raise AwshaError(f"{path} exists already", hint=hint) from None
    except OSError as error:
        hint = "run as root, or choose another place with -o"
        raise AwshaError(f"{path} cannot be written: {error.strerror}", hint=hint) from None


def _behind(link: Path) -> str:
    try:
        return str(link.readlink() if link.readlink().is_absolute() else link.parent / link.readlink())
    except OSError:
        return "FILE"


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
