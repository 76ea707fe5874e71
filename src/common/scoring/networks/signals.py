"""The stack on which this thread is told of signals, which OpenVINO takes away from under it."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """Linux's stack_t."""

    _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


@contextmanager
def own_signal_stack() -> Iterator[None]:
    """Within, a library may set a stack for signals; afterwards this thread has its own again.

    OpenVINO sets one in the thread that compiles a network and frees it where the network is: in
    another thread, if Python's garbage is collected there. The next signal with a handler, Ctrl-C
    or the end of a child process, would end the process without a word (SIGSEGV).
    """
    if sys.platform != "linux":
        yield
        return
    libc, own = ctypes.CDLL(None), _Stack()
    libc.sigaltstack(None, ctypes.byref(own))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(own), None)
