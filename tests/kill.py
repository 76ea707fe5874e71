"""Processes that end by SIGKILL at a stated point, or work on a disk without room, for tests of
what they leave behind.
"""

import ctypes
import os
import pkgutil
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

CRASHED = 7


def in_child(call: Callable[[], object]) -> int:
    """Runs a call in a process of its own; returns how that ended, as os.waitpid says."""
    child = os.fork()
    if child == 0:
        try:
            call()
        except BaseException:
            traceback.print_exc()
            os._exit(CRASHED)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def killed(call: Callable[[], object], place: str, count: int = 1) -> None:
    """Runs a call in a process of its own, which dies where the function at `place`
    (module:Class.name) is called for the count-th time. Fails unless it died so.
    """
    owner, _, name = place.replace(":", ".").rpartition(".")
    calls = []

    def dying() -> None:
        kind = pkgutil.resolve_name(owner)
        function = getattr(kind, name)

        def dies(*arguments, **options):
            calls.append(1)
            if len(calls) == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        setattr(kind, name, dies)
        call()

    status = in_child(dying)
    assert os.WIFSIGNALED(status), f"{place}, call {count}: not reached ({status})"
    assert os.WTERMSIG(status) == signal.SIGKILL


MS_RDONLY, MS_REC, MS_PRIVATE, CLONE_NEWNS = 1, 1 << 14, 1 << 18, 0x20000


def on_a_disk(folder: Path, call: Callable[[], object], room: str, writable: bool = True) -> int:
    """Runs a call in a process of its own, for which an empty disk of that much room (such as
    "64k") lies over the folder; returns how the process ended. Skips where a user may not mount.
    """
    folder.mkdir(parents=True, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    place, kind, flags = os.fsencode(folder), b"tmpfs", 0 if writable else MS_RDONLY
    no_mount = 99

    def mounted() -> None:
        if (
            libc.unshare(CLONE_NEWNS)
            or libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None)
            or libc.mount(kind, place, kind, flags, f"size={room}".encode())
        ):
            os._exit(no_mount)
        call()

    status = in_child(mounted)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == no_mount:
        pytest.skip("a user who may not mount")
    return status
