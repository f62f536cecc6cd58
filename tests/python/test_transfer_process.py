"""tersor.transfer among processes: killed peers, Ctrl-C, forks, and programs that end while it works."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transfer_support import QUICK, cache, same

import tersor
from tersor.transfer import Receiver, Sender

HERE = Path(__file__).resolve().parent
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


def start(program: str, *args: object) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    command = [sys.executable, "-c", program, *map(str, args)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def end_of(process: subprocess.Popen) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


SLOW_SENDER = """
import sys, time
from tersor.transfer import Sender
from transfer_support import cache
sent = cache()
with Sender("127.0.0.1", int(sys.argv[1])) as sender, sender.begin(1, sent) as t:
    for n, (name, x) in enumerate(sent.items()):
        if n == int(sys.argv[2]):
            print("there", flush=True)
            time.sleep(60)
        t.put(name, x)
"""


@pytest.mark.parametrize("layers", [0, 3, 5])
def test_a_killed_sender_leaves_nothing(layers):
    with Receiver(timeouts=QUICK, resume=0.3) as receiver:
        process = start(SLOW_SENDER, receiver.address[1], layers)
        assert process.stdout is not None and process.stdout.readline() == "there\n"
        until = time.monotonic() + 10
        while receiver.counters()["parts"] < layers and time.monotonic() < until:
            time.sleep(0.01)
        process.kill()
        assert end_of(process)[0] == -signal.SIGKILL
        with pytest.raises(tersor.NotFoundError):
            receiver.wait(1, 0.3)
        while receiver.counters()["requests_discarded"] < 1 and time.monotonic() < until:
            time.sleep(0.05)
        counted = receiver.counters()
        assert (counted["requests_published"], counted["requests_discarded"], counted["parts"]) == (0, 1, layers)
        with Sender(*receiver.address) as sender:  # its number is free again
            sender.send(1, cache())
        assert same(receiver.wait(1, 0), cache())


RECEIVER = """
from tersor.transfer import Receiver
receiver = Receiver()
print(receiver.address[1], flush=True)
receiver.wait(99)
"""


def test_a_killed_receiver_is_an_error():
    process = start(RECEIVER)
    assert process.stdout is not None
    port = int(process.stdout.readline())
    with Sender("127.0.0.1", port, timeouts=QUICK, attempts=1) as sender:
        with pytest.raises(tersor.IoError), sender.begin(1, cache()) as t:
            t.put("layers.0.k", cache()["layers.0.k"])
            process.kill()
            process.wait()
            for name, x in list(cache().items())[1:]:
                t.put(name, x)
        with pytest.raises(tersor.IoError):
            sender.send(2, cache())
    end_of(process)


def interrupted(process: subprocess.Popen) -> tuple[float, str]:
    """Sends Ctrl-C once the process says that it is there; seconds until it ended, and what it raised."""
    assert process.stdout is not None and process.stdout.readline() == "there\n"
    time.sleep(0.5)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, _, err = end_of(process)
    return time.monotonic() - begun, err


WAITS = """
from tersor.transfer import Receiver
with Receiver() as receiver:
    print("there", flush=True)
    receiver.wait(1)
"""
SENDS = """
import sys
from tersor.transfer import Sender
from transfer_support import cache
sender = Sender("127.0.0.1", int(sys.argv[1]))
print("there", flush=True)
with sender.begin(1, cache()) as t:
    t.put("layers.0.k", cache()["layers.0.k"])
    t._missing.clear()
"""
CONNECTS = """
import sys
from tersor.transfer import Sender, Timeouts
print("there", flush=True)
Sender("127.0.0.1", int(sys.argv[1]), timeouts=Timeouts(handshake=2))
"""


def test_ctrl_c():
    seconds, err = interrupted(start(WAITS))
    assert seconds < 10 and err.rstrip().endswith("KeyboardInterrupt")
    with Receiver() as receiver:
        seconds, err = interrupted(start(SENDS, receiver.address[1]))
        assert seconds < 10 and "KeyboardInterrupt" in err
        with pytest.raises(tersor.NotFoundError):
            receiver.wait(1, 0)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # never answers the handshake
        seconds, err = interrupted(start(CONNECTS, silent.getsockname()[1]))
        assert seconds < 10 and err.rstrip().endswith("KeyboardInterrupt")


FORKS = """
import os, signal, sys, warnings
warnings.simplefilter("ignore")
import tersor
from tersor.transfer import Receiver, Sender
from transfer_support import cache, same
receiver = Receiver()
sender = Sender(*receiver.address)
sender.send(1, cache())
child = os.fork()
if child == 0:
    signal.alarm(30)  # a child that hangs is a failure
    for call in (lambda: sender.send(2, cache()), lambda: receiver.wait(1, 0), lambda: receiver.address, sender.close):
        try:
            call()
        except tersor.InvalidArgumentError as refused:
            assert "fork" in str(refused), refused
        else:
            raise AssertionError("they are the parent's")
    with Receiver() as own, Sender(*own.address) as to_own:
        to_own.send(1, cache())
        assert same(own.wait(1, 0), cache())
    sys.exit(0)  # with all that an interpreter does at its end
assert os.waitpid(child, 0)[1] == 0
sender.send(3, cache())
assert same(receiver.wait(1, 0), cache()) and same(receiver.wait(3, 0), cache())
"""


def test_fork():
    code, out, err = end_of(start(FORKS))
    assert code == 0, out + err


ENDS = """
import sys, threading
import tersor
from tersor.transfer import Receiver, Sender
from transfer_support import cache
receiver = Receiver()
sender = Sender(*receiver.address)
sender.send(1, cache())
if sys.argv[1] == "sending":
    t = sender.begin(2, cache()).start()
    t.put("layers.0.k", cache()["layers.0.k"])
    t.cancel()
if sys.argv[1] == "callbacks":
    other = Receiver(allocate=lambda request_id, regions, note: {}, on_published=print)
if sys.argv[1] == "raises":
    raise SystemExit(3)
"""


@pytest.mark.parametrize("how", ["idle", "sending", "callbacks", "raises"])
def test_programs_end_with_open_ends(how):
    code, out, err = end_of(start(ENDS, how))
    assert code == (3 if how == "raises" else 0), out + err
    assert not out and "terminate" not in err


def test_memory_does_not_grow():
    """Hundreds of requests into one receiver: nothing is kept."""
    sent = cache(2, 512)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    with Receiver() as receiver, Sender(*receiver.address) as sender:
        for n in range(500):
            sender.send(n, sent)
            receiver.wait(n, 0)
            if n == 200:
                before = resident()
    assert resident() - before < 16 << 20
