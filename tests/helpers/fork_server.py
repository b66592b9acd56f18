"""Commands as processes of their own, forked from a server that has imported the libraries.

`python -m sepablate` takes two of its three seconds for torch, as does the server that forks its
workers; DVC takes one. No module of sepablate is imported here: a command imports that of its
folder, compiled here if it is as in this repository. One whose environment a test spoils is started
by `python`.
"""

import _imp
import atexit
import contextlib
import functools
import gc
import importlib
import inspect
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from multiprocessing import util
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NoReturn, TextIO

LIBRARIES = ("torch._dynamo", "torchvision", "timm", "pandas", "scipy.stats", "matplotlib")
LIBRARIES += ("matplotlib.backends.backend_svg", "pyarrow.pandas_compat", "markdown_it.main")
LIBRARIES += ("typer.main", "pydantic.dataclasses", "dvc.cli.parser", "dvc.repo", "mlflow")
LIBRARIES += ("mlflow.store.tracking.sqlalchemy_store", "sqlalchemy.dialects.sqlite")
SERVER = "SEPABLATE_TESTS_SERVER"  # the address of the server that forks a stage of DVC
FORKSERVER = "from multiprocessing.forkserver import main; "
SPAWN = util.spawnv_passfds
COMPILE = SourceFileLoader.source_to_code
MODULE_OF = inspect.getmodule
ROOT = Path(__file__).parents[2]
BIN = Path(__file__).parent / "bin"
LARGEST = 1 << 20  # bytes of a request
GARBAGE = 200_000  # objects between collections: few tests or commands leave as many


@functools.cache
def address() -> str:
    """The abstract address of the server of this test session, which is started if there is none.

    It ends with pytest, which is the parent of this process with pytest-xdist.
    """
    owner = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    name = f"sepablate-tests-{owner}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        try:
            listener.bind(f"\0{name}")
        except OSError:
            return name  # another process has started it
        listener.listen(64)
        listener.set_inheritable(True)
        command = [sys.executable, __file__, str(listener.fileno()), str(owner)]
        os.posix_spawn(sys.executable, command, os.environ)
    return name


class Command:
    """A command that the server has forked, as `subprocess.Popen` has one."""

    def __init__(self, server: str, request: Mapping[str, object], *ends: int) -> None:
        """Let a server fork the command of a request; ends: its input, output and errors."""
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        while self.connection.connect_ex(f"\0{server}"):
            time.sleep(0.01)  # the server does not listen yet
        socket.send_fds(self.connection, [json.dumps(request).encode()], ends)
        self.pid = int(self.connection.recv(LARGEST))
        self.returncode: int | None = None
        self.stdout: TextIO | None = None

    def wait(self) -> int:
        """Wait for the end; the exit status, negative for a signal."""
        if self.returncode is None:
            self.returncode = int(self.connection.recv(LARGEST))
            self.connection.close()
        return self.returncode

    def poll(self) -> int | None:
        """The exit status if it has ended."""
        if self.returncode is None and select.select([self.connection], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """All that it printed into `stdout`, when it has ended."""
        assert self.stdout
        with self.stdout:
            printed = self.stdout.read()
        self.connection.settimeout(timeout)
        self.wait()
        return printed, None

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def request(
    folder: Path, *command: str, environment: Mapping[str, str] | None = None, **more: object
) -> dict[str, object]:
    """What a server needs to know of `python -m` that command; more: as `be_command` takes it.

    Of `python -c`, if the command begins so.
    """
    own = dict(environment or os.environ)
    return {"folder": str(folder.absolute()), "command": command, "environment": own, **more}


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run what `request` takes in a folder, with these variables more than this process has."""
    output, errors = os.pipe(), os.pipe()
    with open(os.devnull) as nothing:
        wanted = request(folder, *command, environment={**os.environ, **environment})
        started = Command(address(), wanted, nothing.fileno(), output[1], errors[1])
    os.close(output[1])
    os.close(errors[1])
    with os.fdopen(output[0]) as out, os.fdopen(errors[0]) as err:
        said: list[str] = []
        reader = threading.Thread(target=lambda: said.append(err.read()))
        reader.start()
        printed = out.read()
        reader.join()
    done = started.wait()
    return subprocess.CompletedProcess(command, done, printed, *said)


def serve(listener: socket.socket, owner: int) -> dict[str, Any] | None:
    """Fork for each request; return it in the forked process, and None when its owner has ended.

    Who asked hears of the command's end; if that process is gone before, the command is killed.
    """
    asking: list[socket.socket] = []
    commands: dict[int, tuple[int, socket.socket]] = {}  # by a descriptor of their end: who asked
    while True:
        sockets = [listener, *asking, *(by for _, by in commands.values())]
        ready, _, _ = select.select([owner, *sockets, *commands], [], [])
        if owner in ready:
            return None
        if listener in ready:
            asking.append(listener.accept()[0])
        for end, (child, connection) in [*commands.items()]:
            if end in ready:
                _, status = os.waitpid(child, 0)
                with contextlib.suppress(OSError), connection:
                    connection.send(str(os.waitstatus_to_exitcode(status)).encode())
                os.close(end)
                del commands[end]
            elif connection in ready:
                signal.pidfd_send_signal(end, signal.SIGKILL)
        for connection in [each for each in asking if each in ready]:
            asking.remove(connection)
            message, ends, _, _ = socket.recv_fds(connection, LARGEST, 3)
            if not message:
                connection.close()
                continue
            request = json.loads(message)
            child = os.fork()
            if not child:
                for each in (listener, connection, *asking, *(by for _, by in commands.values())):
                    each.close()
                for number in (owner, *commands):
                    os.close(number)
                for number, end in enumerate(ends):
                    os.dup2(end, number)
                    os.close(end)
                return request
            for end in ends:
                os.close(end)
            with contextlib.suppress(OSError):  # it has begun, or ended
                if request.get("group"):
                    os.setpgid(child, child)
            commands[os.pidfd_open(child)] = child, connection
            with contextlib.suppress(OSError):
                connection.send(str(child).encode())


def be_command(
    folder: str,
    command: list[str],
    environment: dict[str, str],
    group: bool = False,
    before: str = "",
) -> NoReturn:
    """Be `python -m command`, or `-c`, up to its exit functions; to free all takes a second.

    group: whether in a process group of its own. before: code that comes first.
    """
    status: Any = 1
    if group:
        os.setpgid(0, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests: `nohup`
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print_to_ends()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    further = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [folder, *filter(None, further)]
    sys.argv = command
    util.spawnv_passfds = start_program
    if SERVER in environment:
        sys.executable = str(BIN / "python")
    exec(before, {})
    try:
        if command[0] == "-c":
            sys.argv = ["-c", *command[2:]]
            sys.modules["__main__"] = main = ModuleType("__main__")
            exec(command[1], vars(main))
        else:
            runpy.run_module(command[0], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0)


def print_to_ends() -> None:
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", closefd=False)


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
        print_to_ends()
        exec(code, {})
    except SystemExit:
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def forward(command: list[str]) -> NoReturn:
    """Be `python` where a process of a test starts it: the server forks what is of sepablate."""
    if command[0] == "-m" and command[1].partition(".")[0] == "sepablate":
        del command[0]
    elif command[0] != "-c":
        os.execv(sys.executable, [sys.executable, *command])
    started = Command(os.environ[SERVER], request(Path.cwd(), *command), 0, 1, 2)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: started.send_signal(number))
    status = started.wait()
    if status < 0:
        os.kill(os.getpid(), -status)
    sys.exit(status)


def compile_once() -> None:
    """Compile the sources of this repository; their copies take them, as from a `.pyc`."""
    sources = [*ROOT.glob("sepablate/**/*.py"), *ROOT.glob("experiments/*.py")]
    codes = {path.read_bytes(): compile(path.read_bytes(), path, "exec") for path in sources}

    def source_to_code(loader: Any, data: bytes, path: str, **more: Any) -> CodeType:
        code = codes.get(data)
        if code is None:
            return COMPILE(loader, data, path, **more)
        _imp._fix_co_filename(code, path)
        return code

    SourceFileLoader.source_to_code = source_to_code


def module_of(thing: Any, file: str | None = None) -> ModuleType | None:
    """`inspect.getmodule`, which goes through all modules for a frame, as pydantic asks for it."""
    if inspect.isframe(thing):
        return sys.modules.get(thing.f_globals["__name__"])
    return MODULE_OF(thing, file)


def forget_exits() -> None:
    """Let a command do at its end what it has registered, not what these libraries have.

    PyTorch would take back each of its operators, and list what it has compiled.
    """
    atexit.unregister(sys.modules["torch._dynamo.utils"].dump_compile_times)
    for each in weakref.finalize._registry:  # type: ignore[attr-defined]
        each.atexit = False


def main(listener: int, owner: int) -> NoReturn:
    lifeline = os.pidfd_open(owner)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    del sys.path[0]  # the folder of this file
    gc.set_threshold(GARBAGE)
    for library in LIBRARIES:
        importlib.import_module(library)
    inspect.getmodule = module_of
    compile_once()
    forget_exits()
    gc.freeze()  # a collection in a forked process would copy the pages of all modules
    request = serve(socket.socket(fileno=listener), lifeline)
    if request:
        be_command(**request)
    os._exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "forward":
        forward(sys.argv[2:])
    main(*map(int, sys.argv[1:]))
