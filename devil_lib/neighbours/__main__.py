"""Measure the tables of the neighbouring attacks and defences: `python -m devil_lib.neighbours` (`make neighbours`).

They are written to `devil_lib/results`. Resumable, with the time left; `--only` takes some of the tables.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import signal

from devil_lib import neighbours
from devil_lib.cells import Table, add_options

_ENDING = "_table"
# Every module of this package that is called so has a `TABLE`.
TABLES = tuple(
    module.name.removesuffix(_ENDING)
    for module in pkgutil.iter_modules(neighbours.__path__)
    if module.name.endswith(_ENDING)
)


def table(name: str) -> Table:
    """The table of one of `TABLES`.

    Raises:
        ValueError: an unknown name.
    """
    if name not in TABLES:
        raise ValueError(f"there is no table {name!r}: choose one of {', '.join(TABLES)}")
    return importlib.import_module(f"devil_lib.neighbours.{name}{_ENDING}").TABLE


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m devil_lib.neighbours", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", nargs="+", choices=TABLES, default=TABLES, metavar="TABLE", help="these tables alone"
    )
    add_options(parser)
    options = parser.parse_args(arguments)
    failed = 0
    for name in options.only:
        one = table(name)
        failed = max(failed, one.serve(one.cells(), options))
        if failed == 130:  # interrupted
            break
    return failed


if __name__ == "__main__":
    # So that `kill` ends a run in the background as Ctrl-C ends one here: with what it measured written.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    raise SystemExit(main())
