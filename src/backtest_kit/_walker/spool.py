"""The setup of trials as a file that workers map into memory.

Everything that the trials of a walk share (the settings, the exchange with its candles, the frame,
the risk profiles) is written once. Workers map the file: arrays are not copied, and all workers of
a machine share the memory.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec

from backtest_kit._engine.engine import Engine
from backtest_kit._values.account_schemas import SizingSchema
from backtest_kit._values.errors import WorkerError
from backtest_kit._walker.trial import TrialSetup

#: Spool folders are named by this and the id of the process that made them.
_FOLDER: Final = "backtest-kit-"
#: Arrays begin at multiples of this many bytes.
_ALIGNMENT: Final = 64
#: Workers log nothing: errors of steps are counted in the result of the trial.
_SILENT: Final = logging.Logger("backtest_kit.worker", logging.CRITICAL)


@dataclass(frozen=True)
class Spool:
    """A file that holds a setup. Two are equal if their content is, wherever they lie."""

    path: str = field(compare=False)
    digest: str


def spool_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a new temporary folder for spools, named after this process."""
    return tempfile.TemporaryDirectory(prefix=f"{_FOLDER}{os.getpid()}-")


def remove_stale_folders() -> None:
    """Remove the folders of processes that were killed: each holds a copy of their candles."""
    if os.name == "nt":  # no way to ask whether a process is alive
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*-*"):
        try:
            os.kill(int(folder.name.removeprefix(_FOLDER).partition("-")[0]), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (ValueError, PermissionError):  # another program's, or another user's
            continue


def write_spool(setup: TrialSetup, risk_names: Sequence[str], folder: str) -> Spool:
    """Write a setup with some of its engine's risk profiles, without callbacks, to a file.

    Raises:
        WorkerError: the exchange or the rest can't be pickled.
    """
    engine = setup.engine
    risks = [msgspec.structs.replace(engine.risks.get(name), callbacks=None) for name in risk_names]
    frame = msgspec.structs.replace(setup.frame, callbacks=None)
    exchange = msgspec.structs.replace(setup.exchange, callbacks=None, close=None)
    sizings = [msgspec.structs.replace(each, callbacks=None) for each in _sizings(setup)]
    money = setup.account, sizings
    shared = (exchange, frame, setup.symbols, engine.config, risks, setup.windows, money)
    buffers: list[pickle.PickleBuffer] = []
    head = pickled(shared, f"exchange {exchange.name!r}", buffers.append)
    path = Path(folder, "job")
    digest = hashlib.blake2b(head, digest_size=16)
    sizes = [buffer.raw().nbytes for buffer in buffers]
    with path.open("wb") as stream:
        stream.write(msgspec.json.encode([len(head), *sizes]) + b"\n")
        stream.write(head)
        for buffer in buffers:
            stream.write(b"\0" * (-stream.tell() % _ALIGNMENT))
            stream.write(buffer.raw())
            digest.update(buffer.raw())
    return Spool(str(path), digest.hexdigest())


@lru_cache(maxsize=1)
def read_spool(spool: Spool) -> TrialSetup:
    """Return the setup that `write_spool` wrote; its arrays are views of the mapped file.

    The last setup is cached, so that a worker which is used again for an equal one keeps its
    engine and the candles in it. The one before is released.

    Raises:
        WorkerError: the file is not there.
    """
    try:
        with Path(spool.path).open("rb") as stream:
            head, *sizes = msgspec.json.decode(stream.readline(), type=list[int])
            start = stream.tell()
            mapped = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise WorkerError(
            f"a worker can't read {spool.path} ({error}); workers must share this machine's files"
        ) from error
    buffers, at = [], start + head
    for size in sizes:
        at += -at % _ALIGNMENT
        buffers.append(mapped[at : at + size])
        at += size
    shared = pickle.loads(mapped[start : start + head], buffers=buffers)  # noqa: S301 - ours
    exchange, frame, symbols, config, risks, windows, (account, sizings) = shared
    engine = Engine()  # of which trials share nothing but the candles
    engine.config, engine.logger = config, _SILENT
    for risk in risks:
        engine.risks.add(risk)
    for sizing in sizings:
        engine.sizings.add(sizing)
    return TrialSetup(engine, symbols, exchange, frame, account=account, windows=windows)


def _sizings(setup: TrialSetup) -> list[SizingSchema]:
    """Return the sizings that the trials need: none without an account."""
    if setup.account is None:
        return []
    return (setup.sizings or setup.engine.sizings).list()


def pickled(
    value: object, what: str, buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None
) -> bytes:
    """Return a value pickled with cloudpickle, which can also send closures.

    Raises:
        WorkerError: it can't be pickled; the message names it as `what`.
    """
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(value, protocol=5, buffer_callback=buffer_callback))
    except Exception as error:
        raise WorkerError(f"{what} can't be sent to a worker: {error}") from error
