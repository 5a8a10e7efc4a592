"""An action that is killed before each of its system calls, in a forked process every time."""

import itertools
import os
import shutil
import signal

__all__ = ["kill_before_each_call"]

CALLS = ("open", "write", "fsync", "mkdir", "replace", "unlink", "rmdir", "scandir", "listdir")

os.fsync = lambda descriptor: None  # a kill, unlike a power cut, loses nothing that was written


def kill_before_each_call(action, start, root):
    """Copies `start` to `root`, acts on it, and yields whether the process was killed, until it no longer is."""
    for call in itertools.count():
        shutil.copytree(start, root)
        child = os.fork()
        if not child:
            _die_at(call)
            action(root)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        yield os.WIFSIGNALED(status)
        shutil.rmtree(root)
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0
            return


def _die_at(call):
    calls = itertools.count()

    def patch(name, original):
        def function(*args, **kwargs):
            if next(calls) == call:
                if name == "write":
                    original(args[0], bytes(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(os, name, function)

    for name in CALLS:
        patch(name, getattr(os, name))
