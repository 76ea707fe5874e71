"""Processes that end by SIGKILL at a stated point, for tests of what they leave behind."""

import os
import pkgutil
import signal
import traceback
from collections.abc import Callable

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
