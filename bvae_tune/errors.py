"""What a person can put right (InputError) and what went wrong while running (RunError)."""

from __future__ import annotations

import errno

# Error numbers of a disk that takes no more, its owner's quota included.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class InputError(ValueError):
    """Bad input: the message says what was wrong, where, and what would be right. Exit code 2."""


class RunError(RuntimeError):
    """A run that could not go on (full disk, lost storage, a failed cluster). Exit code 1."""
