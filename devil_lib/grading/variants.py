"""What a course's key draws: the variant of each exercise and the seed of its hidden tests, by HMAC-SHA256."""

from __future__ import annotations

import hashlib
import hmac
import itertools
from typing import Any

from devil_lib.grading.exercise import Exercise

SHORTEST_KEY = 16  # characters: what a release shows of its variants must not let the key be guessed
_OPEN = "open practice"  # stands in for a key where there is none: everything about the public pair is public


def check_key(key: str) -> None:
    """Refuse a key that could be guessed.

    Raises:
        ValueError: fewer than 16 characters; the message says how to make one.
    """
    if len(key) < SHORTEST_KEY:
        raise ValueError(
            f"the key has {len(key)} characters, and one of fewer than {SHORTEST_KEY} could be guessed: make one with "
            "python3 -c 'import secrets; print(secrets.token_hex(16))', and keep it as you keep the marks"
        )


def _draw(key: str, *purpose: str) -> int:
    """A number below 2^64 that is the same for the same key and purpose, and tells nothing about any other."""
    digest = hmac.new(key.encode(), "\0".join(purpose).encode(), hashlib.sha256).digest()
    return int.from_bytes(digest[:8], "big")


def variant_for(exercise: Exercise, key: str | None = None) -> dict[str, Any]:
    """The variant that a key draws among all combinations of the exercise's choices except the public one; without a key, that.

    Raises:
        ValueError: the key is too short.
    """
    if key is None:
        return exercise.public()
    check_key(key)
    others = list(itertools.product(*exercise.choices.values()))[1:]
    if not others:
        return exercise.public()
    return dict(zip(exercise.choices, others[_draw(key, "variant", exercise.name) % len(others)], strict=True))


def hidden_seed(exercise: Exercise, key: str | None = None) -> int:
    """The seed, 1 to 2^31, of the hidden tests' values. The visible ones have seed 0.

    Raises:
        ValueError: the key is too short.
    """
    if key is not None:
        check_key(key)
    return 1 + _draw(key or _OPEN, "hidden tests", exercise.name) % 2**31
