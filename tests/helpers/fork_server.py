"""The command line as a process of its own, forked from a server that has imported the libraries.

`python -m sepablate` takes two of its three seconds for torch, as does the server that forks its
workers. No module of sepablate is imported here: a command imports that of its folder. A command
that a test stops, or whose environment it spoils, is started by `python`: see `processes.start`.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
from multiprocessing import util
from pathlib import Path
from typing import Any, NoReturn

LIBRARIES = ("torch._dynamo", "torchvision", "timm", "pandas", "scipy.stats", "matplotlib")
FORKSERVER = "from multiprocessing.forkserver import main; "
SPAWN = util.spawnv_passfds
LARGEST = 1 << 20  # bytes of a request


@functools.cache
def server() -> socket.socket:
    """Start the server of this process; it ends with it."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        command = [sys.executable, __file__, str(its.fileno())]
        started = subprocess.Popen(command, pass_fds=[its.fileno()])
    atexit.register(started.wait)
    atexit.register(ours.close)
    return ours


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m sepablate` in a folder, in the environment of this process."""
    request = {"folder": str(folder), "arguments": arguments, "environment": dict(os.environ)}
    output, errors = os.pipe(), os.pipe()
    socket.send_fds(server(), [json.dumps(request).encode()], [output[1], errors[1]])
    os.close(output[1])
    os.close(errors[1])
    with os.fdopen(output[0]) as out, os.fdopen(errors[0]) as err:
        said: list[str] = []
        reader = threading.Thread(target=lambda: said.append(err.read()))
        reader.start()
        printed = out.read()
        reader.join()
    status = int(server().recv(LARGEST))
    return subprocess.CompletedProcess(["sepablate", *arguments], status, printed, *said)


def serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork for each request; return it in the forked process, and None at the end."""
    while True:
        message, ends, _, _ = socket.recv_fds(control, LARGEST, 2)
        if not message:
            return None
        child = os.fork()
        if not child:
            control.close()
            for number, end in enumerate(ends, start=1):
                os.dup2(end, number)
                os.close(end)
            return json.loads(message)
        for end in ends:
            os.close(end)
        control.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


def be_command(folder: str, arguments: list[str], environment: dict[str, str]) -> NoReturn:
    """Be `python -m sepablate` up to its exit functions; to free all modules takes a second."""
    status: Any = 1
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", closefd=False)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path.insert(0, folder)
    sys.argv = ["sepablate", *arguments]
    util.spawnv_passfds = start_program
    try:
        runpy.run_module("sepablate", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0)


def start_program(path: str, arguments: list[str], passed: list[int]) -> int:
    """Fork the server of multiprocessing as well; start any other program."""
    code = arguments[-1]
    if not code.startswith(FORKSERVER):
        return SPAWN(path, arguments, passed)
    child = os.fork()
    if not child:
        be_forkserver(code, passed)
    return child


def be_forkserver(code: str, passed: list[int]) -> NoReturn:
    """Have no handlers of signals and no open files of the command, as a program that starts."""
    try:
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in map(int, os.listdir("/proc/self/fd")):
            if number not in (0, 1, 2, *passed):
                with contextlib.suppress(OSError):  # that of the list itself
                    os.close(number)
        exec(code, {})
    except SystemExit:
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main() -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    del sys.path[0]  # the folder of this file
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.freeze()  # a collection in a forked process would copy the pages of all modules
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    if request:
        be_command(**request)
    os._exit(0)


if __name__ == "__main__":
    main()
