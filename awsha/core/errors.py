"""Errors that a person reads: what is wrong, why, and what to type next."""

from __future__ import annotations

EX_IOERR = 74  # sysexits.h: what it had to say could not be written
EX_CONFIG = 78  # sysexits.h: the configuration is wrong; nothing was touched
EX_TEMPFAIL = 75  # sysexits.h: not finished, safe to run again


class AwshaError(Exception):
    """A failure with a next action. `exit_code` is what the command line ends with."""

    def __init__(self, message: str, *, hint: str = "", exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code
