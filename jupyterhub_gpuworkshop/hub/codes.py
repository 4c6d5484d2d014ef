"""Login codes and passwords: made at random, kept as argon2id hashes only.

Owns how they are hashed and compared. Everything here blocks for some 30 ms of a core:
the hub calls it off its loop.
"""

import secrets

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from jupyterhub_gpuworkshop.core.roster import (
    CODE_LENGTH,
    CODE_LETTERS,
    LONGEST_TYPED,
    code_from,
    tidy_code,
)

_HASHER = PasswordHasher(
    time_cost=2, memory_cost=19 * 1024, parallelism=1, type=Type.ID
)
"""OWASP's Password Storage Cheat Sheet: argon2id, 19 MiB, 2 passes, 1 lane. A hundred
attendees who log in at once cost a hundred of these."""

_NOBODYS = _HASHER.hash(secrets.token_hex())


def new_code() -> str:
    """Return a code that nobody can foresee, without dashes."""
    return code_from(secrets.randbelow(len(CODE_LETTERS)) for _ in range(CODE_LENGTH))


def hash_code(code: str) -> str:
    """Return what a roster keeps of a code."""
    return _HASHER.hash(tidy_code(code))


def hash_password(password: str) -> str:
    """Return what a roster keeps of an organiser's password, which is as it is."""
    return _HASHER.hash(password)


def is_code(kept: str | None, typed: str) -> bool:
    """Whether somebody typed the code that was kept.

    Args:
        kept: its hash; None where there is nobody of that name, which takes as long.
        typed: as it was typed, in any case, with or without dashes.
    """
    return _matches(kept, tidy_code(typed[:LONGEST_TYPED]), typed)


def is_password(kept: str | None, typed: str) -> bool:
    """Whether somebody typed the password that was kept; None takes as long."""
    return _matches(kept, typed, typed)


def _matches(kept: str | None, meant: str, typed: str) -> bool:
    if len(typed) > LONGEST_TYPED:
        kept, meant = None, ""
    try:
        # A lone surrogate cannot be encoded, and is nobody's code.
        given = meant.encode()
    except UnicodeEncodeError:
        kept, given = None, b""
    try:
        _HASHER.verify(kept or _NOBODYS, given)
    except (VerificationError, InvalidHashError):
        return False
    return kept is not None
