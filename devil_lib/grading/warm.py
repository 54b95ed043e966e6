"""Kernels that start warm: forks of a process that has imported what every notebook of the coursework imports.

To import torch takes a kernel several seconds, in every submission anew: most of the time that grading one takes. A fork
has all modules in milliseconds, and nothing else: no value of another submission's, for the server runs no cells.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import psutil
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

LAUNCHER = "ipykernel_launcher"
PRELOADED = (
    "ipykernel.kernelapp",
    "matplotlib.pyplot",
    "matplotlib_inline.backend_inline",
    "scipy.signal",
    "devil_lib.zoo",
)
PATIENCE = 120  # seconds for the first kernel, which waits for the imports


class ForkedProcess:
    """A process that is no child of this one, with as much of `subprocess.Popen` as jupyter_client asks for."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int) -> None:
        self.pid = pid
        # By its start time too, so that another process with the number is not taken for it; None: it has ended already.
        self._process: psutil.Process | None = None
        with contextlib.suppress(psutil.NoSuchProcess):
            self._process = psutil.Process(pid)

    def poll(self) -> int | None:
        """None while it runs; then 0, as nobody but its parent knows how it ended."""
        with contextlib.suppress(psutil.NoSuchProcess):
            if self._process and self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE:
                return None
        return 0

    def wait(self, timeout: float | None = None) -> int:
        if self._process and self.poll() is None:
            try:
                self._process.wait(timeout)
            except psutil.TimeoutExpired as error:
                raise subprocess.TimeoutExpired(LAUNCHER, timeout or 0.0) from error
        return 0

    def send_signal(self, number: int) -> None:
        try:
            if self._process:
                self._process.send_signal(number)
        except psutil.NoSuchProcess as error:
            raise ProcessLookupError(f"process {self.pid} has ended") from error

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class KernelServer:
    """The process that kernels are forked from. It starts with the first kernel and ends with the process that owns this."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._channel: socket.socket | None = None

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], folder: str) -> ForkedProcess:
        """A new kernel.

        Args:
            arguments: of ipykernel's launcher.
            environment: the whole environment of the kernel.
            folder: in which it runs.

        Raises:
            OSError: there is none, because the server could not start, ended or did not answer; the next call tries again.
        """
        with self._lock:
            try:
                if self._process is None or self._process.poll() is not None:
                    self._open()
                request = {"arguments": list(arguments), "environment": dict(environment), "folder": folder}
                self._channel.sendall(json.dumps(request).encode() + b"\n")
                answer = self._channel.recv(100)
                if not answer:
                    raise ConnectionError("the process that kernels are forked from has ended")
                return ForkedProcess(int(answer))
            except OSError:
                self._close()
                raise

    def close(self) -> None:
        """End the server; its kernels notice that and end too."""
        with self._lock:
            self._close()

    def _open(self) -> None:
        self._close()
        self._channel, theirs = socket.socketpair()
        self._channel.settimeout(PATIENCE)
        with theirs:
            # Without the folder that it starts in on its path (a student's files may lie there), which IPython adds later.
            program = (
                "import sys; sys.path = [path for path in sys.path if path]; from devil_lib.grading import warm; "
                f"warm.serve({theirs.fileno()})"
            )
            command = [sys.executable, "-c", program]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])

    def _close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@functools.cache
def _server_of(process: int) -> KernelServer:
    return KernelServer()


def kernel_server() -> KernelServer:
    """This process's own."""
    return _server_of(os.getpid())


class WarmProvisioner(LocalProvisioner):
    """Starts a kernel as a fork of the server where the kernel is this Python's, and as jupyter_client does otherwise."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        if not hasattr(os, "fork") or cmd[:3] != [sys.executable, "-m", LAUNCHER]:
            return await super().launch_kernel(cmd, **kwargs)
        self.cwd = kwargs.get("cwd") or os.getcwd()
        try:
            self.process = kernel_server().start(cmd[3:], kwargs.get("env") or os.environ, str(self.cwd))
        except OSError as error:
            self.log.warning("No warm kernel, so a cold one is started: %s", error)
            return await super().launch_kernel(cmd, **kwargs)
        self.pid = self.pgid = self.process.pid
        return self.connection_info


class WarmKernelManager(AsyncKernelManager):
    """jupyter_client's manager of a kernel, which starts it warm."""

    async def _async_pre_start_kernel(self, **kwargs: Any) -> Any:
        if self.provisioner is None:
            self.provisioner = WarmProvisioner(kernel_spec=self.kernel_spec, parent=self)
        return await super()._async_pre_start_kernel(**kwargs)

    pre_start_kernel = _async_pre_start_kernel


# --- In the server ----------------------------------------------------------------------------------------------------


def serve(number: int) -> None:
    """Fork a kernel for each line that comes through the socket with this number, and answer with the process's number."""
    channel = socket.socket(fileno=number)
    # Both are read while ipykernel and matplotlib are imported: kernels end when this process has, and draw inline.
    os.environ["JPY_PARENT_PID"] = str(os.getpid())
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    from devil_lib.grading.exercise import assignment_names

    for name in (*PRELOADED, *(f"devil_lib.grading.{each}" for each in assignment_names())):
        importlib.import_module(name)
    # Ended kernels are not waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # What is here stays: a kernel's collector need not look at it, which would copy its pages.
    gc.collect()
    gc.freeze()
    requests = channel.makefile("rb")
    while line := requests.readline():
        if os.fork() == 0:
            requests.close()
            _become_kernel(json.loads(line), channel)
            return


def _become_kernel(request: dict[str, Any], channel: socket.socket) -> None:
    os.setsid()  # so that a signal reaches the kernel and all that it starts
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    import numpy as np

    random.seed()
    np.random.seed()
    channel.sendall(str(os.getpid()).encode())
    channel.close()
    from ipykernel import kernelapp

    sys.argv = [LAUNCHER, *request["arguments"]]
    kernelapp.launch_new_instance()
