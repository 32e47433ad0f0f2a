"""Standard output and error, written by threads: what nobody reads holds up nothing."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TextIO

#: Characters that wait to be written at most; what is more is dropped and counted.
MOST_WAITING: Final = 1 << 20
#: Seconds for which the end of a command waits for each of its streams.
LAST_WAIT: Final = 1.0


class BackgroundStream(io.TextIOBase):
    """A text stream whose `write` never blocks; a daemon thread does the writing.

    A stream without a file descriptor can't block, and is written to at once.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._handle = _handle_of(stream)
        self._texts: deque[str] = deque()
        self._waiting = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        #: Characters that were dropped because nobody read the ones before.
        self.dropped = 0
        #: Whether the other side has closed the pipe, or the device is gone.
        self.is_broken = False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream."""
        return self._stream.encoding or "utf-8"

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """What is done with a character that the encoding has not."""
        return self._stream.errors

    @property
    def has_room(self) -> bool:
        """Whether a line that is written now is kept."""
        return self._waiting < MOST_WAITING // 2

    @property
    def is_idle(self) -> bool:
        """Whether everything has been written."""
        return self._waiting == 0

    def fileno(self) -> int:
        """Return the descriptor of the stream."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Say whether the stream is a terminal."""
        return self._stream.isatty()

    def writable(self) -> bool:
        """Say that it can be written to."""
        return True

    def write(self, text: str, /) -> int:
        """Queue a text, or drop it where too much waits already; raises TypeError for bytes."""
        if not isinstance(text, str):  # click asks in this way what kind of stream it has
            raise TypeError(f"a text is written here, not {type(text).__name__}")
        if self._handle is None:
            return self._stream.write(text)
        with self._changed:
            if self.is_broken or self._waiting + len(text) > MOST_WAITING:
                self.dropped += len(text)
                return len(text)
            self._texts.append(text)
            self._waiting += len(text)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True, name="output")
                self._thread.start()
            self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        """Do nothing: the thread writes as fast as somebody reads."""
        if self._handle is None:
            self._stream.flush()

    def wait(self, seconds: float) -> bool:
        """Wait until everything has been written, for so many seconds at most."""
        with self._changed:
            return self._changed.wait_for(lambda: self._waiting == 0, seconds)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._texts)
                text = "".join(self._texts)
                self._texts.clear()
            broken = not self._put(text)
            with self._changed:
                self.is_broken = self.is_broken or broken
                self._waiting -= len(text)
                if self.is_broken:
                    self._texts.clear()
                    self._waiting = 0
                self._changed.notify_all()

    def _put(self, text: str) -> bool:
        assert self._handle is not None
        if os.linesep != "\n":
            text = text.replace("\n", os.linesep)
        left = memoryview(text.encode(self.encoding, self.errors or "replace"))
        try:
            while left:
                left = left[os.write(self._handle, left) :]
        except OSError:
            return False
        return True


@contextmanager
def background_output() -> Iterator[tuple[BackgroundStream, BackgroundStream]]:
    """Write standard output and error by threads inside of the block; wait a little at its end."""
    before = sys.stdout, sys.stderr
    for stream in before:
        stream.flush()
    output, errors = (BackgroundStream(stream) for stream in before)
    sys.stdout, sys.stderr = output, errors
    try:
        yield output, errors
    finally:
        sys.stdout, sys.stderr = before
        output.wait(LAST_WAIT)
        errors.wait(LAST_WAIT)


def _handle_of(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, AttributeError):
        return None
