"""How a notebook's kernel is talked to, when lessons are run and when exercises are graded."""

from __future__ import annotations

import math
import os
import time
import uuid
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from traitlets import Type

LOOK = 1.0  # seconds after which a channel looks whether a message has come


class PatientChannel(AsyncZMQSocketChannel):
    """A channel that also finds a message of whose coming it was not told.

    For each output inside an Output widget (as `ipywidgets.interact` makes) nbclient sends a message on the very socket
    on which it waits for the cell's end. Sending can take the signal that the answer has come, and then the wait lasts
    until the cell's time is over (nbclient's issue 312).
    """

    async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:
        """The next message.

        Args:
            timeout: seconds to wait; None waits for ever.

        Raises:
            queue.Empty: none came in that time.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            left = max(0.0, deadline - time.monotonic())
            try:
                return await super().get_msg(min(left, LOOK))
            except Empty:
                if left <= LOOK:
                    raise


class PatientClient(AsyncKernelClient):
    """jupyter_client's client of a kernel, with a shell channel that finds every answer."""

    shell_channel_class = Type(PatientChannel)


def kernel_settings(folder: Path) -> dict[str, Any]:
    """What a kernel's manager (jupyter_client's `AsyncKernelManager`) is set to, for one kernel.

    Args:
        folder: for the kernel's sockets. A short name: the path of a socket has at most about 100 characters.
    """
    settings: dict[str, Any] = {"client_factory": PatientClient}
    if os.name != "nt":
        # TCP ports are chosen free and then let go for the kernel to take; of two kernels that start together one may take
        # the other's, and both wait for ever.
        settings |= {"transport": "ipc", "connection_file": str(folder / f"{uuid.uuid4().hex[:8]}.json")}
    return settings
