"""Trials in other processes, with the same results in the same order as in this one."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from tempfile import TemporaryDirectory
from typing import Final, Literal

import msgspec

from backtest_kit._backtest.array_session import can_be_simulated
from backtest_kit._statistics.trial_result import OtherTrial, TrialResult
from backtest_kit._values.errors import StrategyFailedError, WorkerError
from backtest_kit._values.schemas import StrategySchema
from backtest_kit._values.user_code import of_user_code
from backtest_kit._walker.runner import Workers
from backtest_kit._walker.shared_state import SharedState
from backtest_kit._walker.spool import (
    Spool,
    pickled,
    read_spool,
    remove_stale_folders,
    spool_folder,
    write_spool,
)
from backtest_kit._walker.trial import PARTS, TrialSetup, run_trial

#: How often a worker asks for its parent, where the system does not tell of its end.
_WATCH_SECONDS: Final = 1.0
#: The most array strategies in one batch.
_MOST_PER_BATCH: Final = 8
#: A strategy has failed once a worker that ran nothing else has died so often.
MOST_DEATHS: Final = 3


class ExecutorLostError(WorkerError):
    """An executor takes no more work, which is the fault of no strategy."""


@dataclass(eq=False, slots=True)
class _Batch:
    """Trials that are sent to a worker together, and are lost together if it dies.

    `strategies` are pickled; each runs over the first `parts` of the frame. `submitted`: to the
    pool. `suspect`: it may have been running when a worker died, so each of its trials is run in
    isolation. `done`: the results are in `future`.
    """

    strategies: list[bytes]
    parts: int
    future: Future[list[bytes]]
    state: Literal["submitted", "suspect", "done"] = "submitted"

    @property
    def lost(self) -> bool:
        """Whether the batch has to be run again now that the pool is broken."""
        if self.state != "submitted":
            return False
        if not self.future.done() or self.future.cancelled():
            return True
        return isinstance(self.future.exception(), BrokenExecutor)


class PoolRunner:
    """Runs trials in an executor; those it is given are submitted when it is opened.

    `executor="processes"` is a pool of `workers` processes of its own, whose workers are replaced
    when they die. `risk_names` are the risk profiles that later trials may name.
    """

    already_known: int = 0

    def __init__(
        self,
        setup: TrialSetup,
        strategies: Sequence[StrategySchema],
        executor: Workers,
        *,
        workers: int | None = None,
        risk_names: Sequence[str] = (),
    ) -> None:
        self._setup = setup
        self._given = strategies
        self._risk_names = {*risk_names, *(n for one in strategies for n in one.risk_names)}
        self._given_executor = None if isinstance(executor, str) else executor
        self._owns_executor = self._given_executor is None
        self._workers = workers or os.cpu_count() or 1
        self._batches: list[_Batch] = []
        #: Of each trial: its batch, its place in it, and its strategy.
        self._trials: list[tuple[_Batch, int, StrategySchema]] = []
        self._shared = SharedState()
        self._any_result = False
        self._folder: TemporaryDirectory[str] | None = None
        self._executor: Executor | None = None
        self._isolation_pool: Executor | None = None

    async def open(self) -> None:
        """Write the spool, start the workers, and submit all trials.

        Raises:
            WorkerError: something can't be sent to a worker; the message names it.
        """
        remove_stale_folders()
        self._folder = spool_folder()
        self._spool = write_spool(self._setup, sorted(self._risk_names), self._folder.name)
        self._executor = self._given_executor or self._new_pool(self._workers)
        self.add(self._given)

    def add(self, strategies: Sequence[StrategySchema], parts: int = PARTS) -> range:
        """Submit trials over the first `parts` of the frame; return their indices for `run`.

        Raises:
            WorkerError: a strategy can't be sent to a worker; the message names it.
        """
        first, size = len(self._trials), _batch_size(strategies, self._workers)
        for begin in range(0, len(strategies), size):
            some = strategies[begin : begin + size]
            sent = [
                pickled(without_callbacks(strategy), f"strategy {strategy.name!r}")
                for strategy in some
            ]
            batch = _Batch(sent, parts, self._submit(sent, parts))
            self._batches.append(batch)
            self._trials += [(batch, place, one) for place, one in enumerate(some)]
        return range(first, len(self._trials))

    async def run(self, index: int) -> TrialResult:
        """Return the result of a trial; if workers die, replace them and run what was lost again.

        Raises:
            WorkerError: an executor that was given is broken, or was shut down.
            StrategyFailedError: the strategy killed its worker, again and again; or it holds what
                an earlier trial has changed, or has changed what others hold.
        """
        batch, position, strategy = self._trials[index]
        outcome: TrialResult | StrategyFailedError
        try:
            outcome = await self._result_of(index)
        except StrategyFailedError as error:
            outcome = error
        shares = self._shared.judge(strategy)
        self._shared.note(strategy, outcome.changed)
        if shares is not None:
            raise shares
        if isinstance(outcome, TrialResult):
            return outcome
        if not outcome.began_with_others or not self._owns_executor:
            raise outcome
        # its worker ran later ones before it: they left what it would not have found
        self._end_isolation()
        try:
            sent = batch.strategies[position]
            return await self._run_isolated(sent, batch.parts, strategy.name)
        finally:
            self._end_isolation()

    async def _result_of(self, index: int) -> TrialResult:
        """Return what a trial's worker returned; raises what that raised."""
        batch, position, strategy = self._trials[index]
        while batch.state != "suspect":
            try:
                results = await asyncio.wrap_future(batch.future)
            except BrokenExecutor as error:
                if not self._owns_executor:
                    raise ExecutorLostError(
                        f"the executor is broken ({type(error).__name__}): a worker died, "
                        "and it takes no more work; give a new one"
                    ) from error
                self._replace_workers()  # the batch is a suspect now, or submitted again
            except asyncio.CancelledError as error:
                raise ExecutorLostError(
                    "the executor was shut down before the walk was over"
                ) from of_user_code(error)
            else:
                batch.state, self._any_result = "done", True
                return _unpickled(results[position])
        return await self._run_isolated(batch.strategies[position], batch.parts, strategy.name)

    async def close(self) -> None:
        """Cancel what has not begun, and end the processes that were started here."""
        for batch in self._batches:
            batch.future.cancel()
        if self._owns_executor and self._executor is not None:
            _kill(self._executor)
        self._end_isolation()
        if self._folder is not None:
            self._folder.cleanup()

    def _end_isolation(self) -> None:
        """End the worker that ran trials alone; the next one begins as a new process does."""
        if self._isolation_pool is not None:
            _kill(self._isolation_pool)
            self._isolation_pool = None

    def variants_tried(self) -> None:
        """Return `None`: nothing is stored."""

    def others_tried(self) -> Sequence[OtherTrial]:
        """Return none: nothing is stored."""
        return ()

    def _submit(self, strategies: Sequence[bytes], parts: int) -> Future[list[bytes]]:
        assert self._executor is not None
        try:
            return self._executor.submit(_run_batch, self._spool, strategies, parts)
        except BrokenExecutor as error:  # as if it had broken a moment later
            broken: Future[list[bytes]] = Future()
            broken.set_exception(error)
            return broken

    def _new_pool(self, workers: int) -> Executor:
        # not fork: this process may have threads
        return ProcessPoolExecutor(
            max_workers=workers, mp_context=get_context("spawn"), initializer=_end_with_parent
        )

    def _replace_workers(self) -> None:
        """Start a new pool; mark batches that may have been running, submit the other lost ones."""
        self._setup.engine.logger.warning("a worker died; its trials are run again by new ones")
        assert self._executor is not None
        _kill(self._executor)
        self._executor = self._new_pool(self._workers)
        lost = [batch for batch in self._batches if batch.lost]
        running = self._workers + 1  # one more is queued for the first worker that is free
        for batch in lost[:running]:
            batch.state = "suspect"
        for batch in lost[running:]:
            batch.future = self._submit(batch.strategies, batch.parts)

    async def _run_isolated(self, strategy: bytes, parts: int, name: str) -> TrialResult:
        """Run a trial in a worker that runs nothing else, so that its death is this one's fault.

        Raises:
            StrategyFailedError: the worker died `MOST_DEATHS` times.
        """
        for _ in range(MOST_DEATHS):
            pool = self._isolation_pool = self._isolation_pool or self._new_pool(1)
            try:
                future = pool.submit(_run_batch, self._spool, [strategy], parts)
                (result,) = await asyncio.wrap_future(future)
            except BrokenExecutor:
                self._end_isolation()
            else:
                self._any_result = True
                return _unpickled(result)
        hint = (
            ""
            if self._any_result
            else '; a script that starts workers does so under `if __name__ == "__main__":`'
        )
        raise StrategyFailedError(
            f"a worker died {MOST_DEATHS} times in the trial of strategy {name!r}, which it ran "
            f"alone{hint}"
        )


def without_callbacks(strategy: StrategySchema) -> StrategySchema:
    """Return a strategy without its callbacks: nobody could hear them from a worker."""
    return msgspec.structs.replace(strategy, callbacks=None)


def _batch_size(strategies: Sequence[StrategySchema], workers: int) -> int:
    """Return how many trials to send at once: of short ones several, since sending takes time."""
    if all(can_be_simulated(strategy) for strategy in strategies):
        return max(1, min(_MOST_PER_BATCH, len(strategies) // (4 * workers)))
    return 1


def _end_with_parent() -> None:
    """Make this worker end when its parent does, also where that is killed.

    Each worker holds both ends of the queues, so none would see that nobody writes any more.
    """
    parent = parent_process()
    assert parent is not None

    def lives() -> bool:
        if wait([parent.sentinel], _WATCH_SECONDS):
            return False
        # not on Windows, the sentinel is a pipe, held open by whatever else the parent has forked
        return os.name == "nt" or os.getppid() == parent.pid

    def watch() -> None:
        while lives():
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end with parent").start()
    _be_killed_at_end_of(parent.sentinel)


def _be_killed_at_end_of(pipe: int) -> None:
    """Let the kernel kill this worker when a pipe is closed at its other end, where it can.

    A call in C that gives no other thread a turn would outlive the parent.
    """
    if sys.platform == "linux":
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)


def _run_batch(spool: Spool, strategies: Sequence[bytes], parts: int) -> list[bytes]:
    """Run trials in a worker; return the pickled result or error of each."""

    async def run_all() -> list[bytes]:
        return [await _pickled_outcome(spool, strategy, parts) for strategy in strategies]

    return asyncio.run(run_all())


async def _pickled_outcome(spool: Spool, strategy: bytes, parts: int) -> bytes:
    try:
        setup = read_spool(spool)
        result = await run_trial(setup, pickle.loads(strategy), parts)  # noqa: S301 - ours
        return pickle.dumps((result, None))
    except Exception as error:  # noqa: BLE001 - raised again where the result is asked for
        return pickle.dumps((None, _picklable(error)))


def _unpickled(outcome: bytes) -> TrialResult:
    """Return the result of a trial, or raise what it raised."""
    result, error = pickle.loads(outcome)  # noqa: S301 - ours
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def _picklable(error: Exception) -> Exception:
    """Return an error itself if it survives pickling, else a WorkerError with its text."""
    try:
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - ours
    except Exception:  # noqa: BLE001 - anything that a user's error does when it is pickled
        copy = None
    if type(copy) is type(error) and str(copy) == str(error):
        return error
    return WorkerError(f"{type(error).__name__}: {error}")


def _kill(executor: Executor) -> None:
    """Kill the workers of a process pool, whatever they are doing."""
    processes = [*(getattr(executor, "_processes", None) or {}).values()]
    executor.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
