"""Whether the tests are shared out among several processes, as by `make test`."""

import os


def one_of_several() -> bool:
    """Whether this process is one of them, and so should not start more than it needs."""
    return "PYTEST_XDIST_WORKER" in os.environ
