"""Trials in other processes: the same figures in the same order, whichever is done first.

What all trials of a walk share (the settings, the exchange with its candles, the frame, the risk
profiles) is written to files once. Each worker maps them: arrays are not copied, and workers on
one machine share the memory. A trial itself is a strategy there and its figures back.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import mmap
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from backtest_kit._backtest.array_reach import playable
from backtest_kit._engine.engine import Engine
from backtest_kit._statistics.trial import TrialResult
from backtest_kit._values.errors import StrategyFailedError, WorkerError
from backtest_kit._values.schemas import ExchangeSchema, FrameSchema, StrategySchema
from backtest_kit._values.user_code import of_user_code
from backtest_kit._walker.trial import run_trial

#: Trials over arrays that make one job at most.
_MOST_TOGETHER: Final = 8
#: A strategy during whose trial its worker dies so often has failed.
MOST_DEATHS: Final = 3
_FOLDER: Final = "backtest-kit-"

Job = tuple[Engine, ExchangeSchema, FrameSchema, tuple[str, ...]]


@dataclass(frozen=True)
class Spool:
    """A file with what trials share; two are the same where their content is."""

    path: str = field(compare=False)
    digest: str


class There:
    """Trials run by an executor, all submitted at once."""

    known: Final = 0

    def __init__(
        self,
        engine: Engine,
        strategies: Sequence[StrategySchema],
        symbols: Sequence[str],
        exchange: ExchangeSchema,
        frame: FrameSchema,
        executor: Executor | Literal["processes"],
        *,
        workers: int | None = None,
    ) -> None:
        self._engine = engine
        self._schemas = strategies
        self._shared = (symbols, exchange, frame)
        self._own = executor == "processes"
        self._given = executor
        self._workers = workers or os.cpu_count() or 1
        self._suspects: set[int] = set()
        self._answered = False
        self._futures: list[Future[list[bytes]]] = []
        self._strategies: list[bytes] = []
        self._size = _together(strategies, self._workers)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._executor: Executor | None = None
        self._apart: Executor | None = None

    async def open(self) -> None:
        """See `Trials`.

        Raises:
            WorkerError: something can't be sent to a worker; the message names it.
        """
        risks = sorted({name for schema in self._schemas for name in schema.risk_names})
        _clear()
        self._folder = tempfile.TemporaryDirectory(prefix=f"{_FOLDER}{os.getpid()}-")
        self._job = _spool(self._engine, *self._shared, risks, self._folder.name)
        given = self._given
        self._executor = self._pool(self._workers) if isinstance(given, str) else given
        for first in range(0, len(self._schemas), self._size):  # it runs while others are packed
            for strategy in self._schemas[first : first + self._size]:
                self._strategies.append(_packed(bare(strategy), f"strategy {strategy.name!r}"))
            self._futures.append(self._submit(len(self._futures)))

    async def trial(self, index: int) -> TrialResult:
        """See `Trials`; workers that die are replaced, and what they did is done again."""
        while index not in self._suspects:
            try:
                answers = await asyncio.wrap_future(self._futures[index // self._size])
                self._answered = True
                return _opened(answers[index % self._size])
            except BrokenExecutor as error:
                if not self._own:
                    raise WorkerError(
                        f"the executor is broken ({type(error).__name__}): a worker died, "
                        "and it takes no more work; give a new one"
                    ) from error
                self._replace()
            except asyncio.CancelledError as error:
                raise WorkerError(
                    "the executor was shut down before the walk was over"
                ) from of_user_code(error)
        return await self._alone(index)

    async def close(self) -> None:
        """See `Trials`; ends the processes that were started here."""
        for future in self._futures:
            future.cancel()
        if self._own and self._executor is not None:
            _end(self._executor)
        if self._apart is not None:
            _end(self._apart)
        if self._folder is not None:
            self._folder.cleanup()

    def tried(self) -> None:
        """See `Trials`."""

    def _submit(self, job: int) -> Future[list[bytes]]:
        assert self._executor is not None
        strategies = self._strategies[job * self._size : (job + 1) * self._size]
        try:
            return self._executor.submit(_work, self._job, strategies)
        except BrokenExecutor as error:  # as if it had broken a moment later
            broken: Future[list[bytes]] = Future()
            broken.set_exception(error)
            return broken

    def _pool(self, workers: int) -> Executor:
        # not fork: this process may have threads
        return ProcessPoolExecutor(max_workers=workers, mp_context=get_context("spawn"))

    def _replace(self) -> None:
        """Start workers anew. What was under way is suspect, and waits; the rest begins again."""
        self._engine.logger.warning("a worker died; its trials are done again by new ones")
        assert self._executor is not None
        _end(self._executor)
        self._executor = self._pool(self._workers)
        left = [job for job, future in enumerate(self._futures) if _lost(future)]
        under_way = self._workers + 1  # one more lies ready for the first who is free
        for job in left[:under_way]:
            self._suspects |= {*range(job * self._size, (job + 1) * self._size)}
        for job in left[under_way:]:
            self._futures[job] = self._submit(job)

    async def _alone(self, index: int) -> TrialResult:
        """Return a trial by a worker that does nothing else, so that its death is this one's fault.

        Raises:
            StrategyFailedError: that worker died, too, more than once.
        """
        for _ in range(MOST_DEATHS):
            self._apart = pool = self._apart or self._pool(1)
            try:
                future = pool.submit(_work, self._job, [self._strategies[index]])
                answers = await asyncio.wrap_future(future)
                self._answered = True
                return _opened(answers[0])
            except BrokenExecutor:
                _end(pool)
                self._apart = None
        hint = (
            ""
            if self._answered
            else ('; a script that starts workers does so under `if __name__ == "__main__":`')
        )
        raise StrategyFailedError(
            f"a worker died {MOST_DEATHS} times in the trial of strategy "
            f"{self._schemas[index].name!r}, and did nothing else{hint}"
        )


def _clear() -> None:
    """Remove what walks that were killed have left: a copy of their candles each."""
    if os.name == "nt":  # no way to ask whether a process is alive
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*-*"):
        try:
            os.kill(int(folder.name.removeprefix(_FOLDER).partition("-")[0]), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (ValueError, PermissionError):  # not ours
            continue


def bare(strategy: StrategySchema) -> StrategySchema:
    """Return a strategy without its callbacks: nobody could hear them from a worker."""
    return msgspec.structs.replace(strategy, callbacks=None)


def _spool(
    engine: Engine,
    symbols: Sequence[str],
    exchange: ExchangeSchema,
    frame: FrameSchema,
    risks: Sequence[str],
    folder: str,
) -> Spool:
    """Write what all trials share; return its path and digest."""
    schemas = [msgspec.structs.replace(engine.risks.get(name), callbacks=None) for name in risks]
    frame = msgspec.structs.replace(frame, callbacks=None)
    exchange = msgspec.structs.replace(exchange, callbacks=None, close=None)
    job = (exchange, frame, tuple(symbols), engine.config, schemas)
    buffers: list[pickle.PickleBuffer] = []
    head = _packed(job, f"exchange {exchange.name!r}", buffers.append)
    path = Path(folder, "job")
    digest = hashlib.blake2b(head, digest_size=16)
    sizes = [buffer.raw().nbytes for buffer in buffers]
    with path.open("wb") as stream:
        stream.write(msgspec.json.encode([len(head), *sizes]) + b"\n")
        stream.write(head)
        for buffer in buffers:
            stream.write(b"\0" * (-stream.tell() % 64))  # arrays want to be aligned
            stream.write(buffer.raw())
            digest.update(buffer.raw())
    return Spool(str(path), digest.hexdigest())


@lru_cache(maxsize=1)
def _unspool(spool: Spool) -> Job:
    """Return what `_spool` wrote; arrays are views of the mapped file.

    A worker that is kept has the engine of its last walk, and its candles, where all is the same.

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
        at += -at % 64
        buffers.append(mapped[at : at + size])
        at += size
    shared = pickle.loads(mapped[start : start + head], buffers=buffers)  # noqa: S301 - ours
    exchange, frame, symbols, config, risks = shared
    engine = Engine()  # of which trials share no more than the candles
    engine.config, engine.logger = config, _QUIET
    for risk in risks:
        engine.risks.add(risk)
    return engine, exchange, frame, symbols


def _together(strategies: Sequence[StrategySchema], workers: int) -> int:
    """Return how many trials make a job: handing it over costs a part of a short one."""
    if all(playable(strategy) for strategy in strategies):
        return max(1, min(_MOST_TOGETHER, len(strategies) // (4 * workers)))
    return 1


def _work(job: Spool, strategies: Sequence[bytes]) -> list[bytes]:
    """Run some trials, in a worker; what one raises comes back as its answer."""

    async def work() -> list[bytes]:
        return [await _answer(job, strategy) for strategy in strategies]

    return asyncio.run(work())


async def _answer(job: Spool, strategy: bytes) -> bytes:
    try:
        engine, exchange, frame, symbols = _unspool(job)
        schema = pickle.loads(strategy)  # noqa: S301 - ours
        trial = await run_trial(engine, schema, symbols, exchange, frame)
        return pickle.dumps((trial, None))
    except Exception as error:  # noqa: BLE001 - told where the trial was asked for
        return pickle.dumps((None, _portable(error)))


#: Errors of steps are counted in the trial; a worker's own output would mix with the walk's.
_QUIET: Final = logging.Logger("backtest_kit.worker", logging.CRITICAL)


def _opened(answer: bytes) -> TrialResult:
    trial, error = pickle.loads(answer)  # noqa: S301 - ours
    if error is not None:
        raise error
    return trial  # type: ignore[no-any-return]


def _portable(error: Exception) -> Exception:
    """Return the error itself where it can travel, else one of ours with its text."""
    try:
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 - ours
    except Exception:  # noqa: BLE001 - whatever a user's error does when it is pickled
        again = None
    if type(again) is type(error) and str(again) == str(error):
        return error
    return WorkerError(f"{type(error).__name__}: {error}")


def _lost(future: Future[list[bytes]]) -> bool:
    """Say whether a trial has to be done again: it is not over, or its worker died."""
    if not future.done() or future.cancelled():
        return True
    return isinstance(future.exception(), BrokenExecutor)


def _packed(
    thing: object, what: str, keep: Callable[[pickle.PickleBuffer], Any] | None = None
) -> bytes:
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(thing, protocol=5, buffer_callback=keep))
    except Exception as error:
        raise WorkerError(f"{what} can't be sent to a worker: {error}") from error


def _end(executor: Executor) -> None:
    """End a process pool's workers where they are: nobody waits for their trials."""
    processes = [*(getattr(executor, "_processes", None) or {}).values()]
    executor.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
