"""What a test does when a program that it needs is not there."""

import os
from typing import NoReturn

import pytest


def missing(sentence: str) -> NoReturn:
    """Skip the test, with a sentence that says what to install; on CI, where it has to run, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{sentence}, and on CI this test has to run")
    pytest.skip(sentence)
