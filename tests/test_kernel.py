"""Talking to a kernel: an answer whose signal was taken is found all the same."""

import asyncio
import time
from queue import Empty

import pytest
import zmq
import zmq.asyncio
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.session import Session
from nbformat.v4 import new_notebook
from traitlets.config import Config

from devil_lib.course.kernel import LOOK, PatientChannel, PatientClient, kernel_settings
from devil_lib.grading.execute import SturdyExecute

PATIENCE = 60.0


async def wait_for_answer(kind: type, timeout: float | None, *, answered: bool, disturbed: bool) -> dict:
    """A channel's wait for a message; if disturbed, something is sent through it just after that has come."""
    session = Session(key=b"")
    with zmq.Context() as theirs, zmq.asyncio.Context() as ours:
        kernel, socket = theirs.socket(zmq.ROUTER), ours.socket(zmq.DEALER)
        kernel.linger = socket.linger = 0
        try:
            socket.connect(f"tcp://127.0.0.1:{kernel.bind_to_random_port('tcp://127.0.0.1')}")
            channel = kind(socket, session)
            channel.send(session.msg("execute_request"))
            sender = kernel.recv_multipart()[0]
            waiting = asyncio.create_task(channel.get_msg(timeout))
            await asyncio.sleep(0.2)
            if answered:
                session.send(kernel, "execute_reply", ident=sender)
            if disturbed:
                # Not `asyncio.sleep`: the loop must not see the signal before the message is sent.
                time.sleep(0.2)
                channel.send(session.msg("comm_msg"))
            return await waiting
        finally:
            kernel.close()
            socket.close()


def timed(*args, **options) -> tuple[dict, float]:
    start = time.monotonic()
    return asyncio.run(wait_for_answer(*args, **options)), time.monotonic() - start


@pytest.mark.parametrize("timeout", [PATIENCE, None])
@pytest.mark.parametrize("disturbed", [False, True])
def test_an_answer_is_found_whatever_is_sent_meanwhile(disturbed, timeout):
    message, seconds = timed(PatientChannel, timeout, answered=True, disturbed=disturbed)
    assert message["msg_type"] == "execute_reply"
    assert seconds < PATIENCE, "it was found by looking, not when the time was over"


def test_the_disturbance_takes_the_signal():
    """jupyter_client's own channel finds the same message when the time is over: the test above shows something."""
    message, seconds = timed(AsyncZMQSocketChannel, 3 * LOOK, answered=True, disturbed=True)
    assert message["msg_type"] == "execute_reply"
    assert seconds > 3 * LOOK


@pytest.mark.parametrize("timeout", [0, LOOK / 2, 1.5 * LOOK])
def test_no_message_is_said_when_the_time_is_over(timeout):
    start = time.monotonic()
    with pytest.raises(Empty):
        asyncio.run(wait_for_answer(PatientChannel, timeout, answered=False, disturbed=False))
    assert time.monotonic() - start >= timeout


def test_lessons_and_exercises_are_run_with_such_a_channel(tmp_path):
    run = AsyncKernelManager(config=Config({"KernelManager": kernel_settings(tmp_path)}))
    graded = SturdyExecute()
    graded.nb, graded._sockets = new_notebook(), str(tmp_path)
    for manager in (run, graded.create_kernel_manager()):
        client = manager.client()
        assert isinstance(client, PatientClient)
        assert client.shell_channel_class is PatientChannel
    assert len({str(kernel_settings(tmp_path).get("connection_file", i)) for i in range(3)}) == 3
