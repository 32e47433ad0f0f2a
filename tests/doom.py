"""Kill a process at a call that touches a folder: for programs that fork, and have no threads then.

A kill is SIGKILL, before or after a call, or with half of the bytes written. What a disk's own
cache loses is not simulated.
"""

import gc
import os
import signal

CALLS = ("open", "write", "fsync", "replace", "close")


class Doom:
    """Counts the calls, and kills the process at one of them; counts only if the point is 0."""

    def __init__(self, point, folder):
        self.point, self.count, self.folder = point, 0, str(folder)
        self.real = {name: getattr(os, name) for name in CALLS}
        self.handles = set()

    def step(self):
        self.count += 1
        if self.count == self.point:
            os.kill(os.getpid(), signal.SIGKILL)

    def arm(self):
        real = self.real

        def open_(path, *rest, **named):
            if not str(path).startswith(self.folder):
                return real["open"](path, *rest, **named)
            self.step()
            handle = real["open"](path, *rest, **named)
            self.handles.add(handle)
            return handle

        def write(handle, data):
            if handle not in self.handles:
                return real["write"](handle, data)
            self.step()
            if self.count + 1 == self.point:
                real["write"](handle, bytes(data)[: len(data) // 2])
            self.step()
            done = real["write"](handle, data)
            self.step()
            return done

        def fsync(handle):
            self.step()
            real["fsync"](handle)

        def replace(source, target):
            self.step()
            real["replace"](source, target)
            self.step()

        def close(handle):  # its number is given to another
            self.handles.discard(handle)
            real["close"](handle)

        os.open, os.write, os.fsync, os.replace, os.close = open_, write, fsync, replace, close


def process(play, folder, point):
    """Play in a process of its own, that is killed at a point, or lives to the end if it is 0.

    Returns whether it was killed and, of one that was not, how many calls it made.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            gc.disable()  # nothing is copied that is only inherited
            os.close(reader)
            doom = Doom(point, folder)
            play(folder, doom)
            doom.real["write"](writer, str(doom.count).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        count = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(f"{folder}: the process that was to die at call {point} failed")
    return bool(code), int(count or 0)
