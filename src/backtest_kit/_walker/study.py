"""A search with Optuna: one trial after another, each from the study so far."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from backtest_kit._engine.engine import Engine, describe
from backtest_kit._engine.record import RunRecord
from backtest_kit._engine.walk_events import WalkerProgressEvent
from backtest_kit._statistics.figures import metric as metric_of
from backtest_kit._statistics.figures import summarize
from backtest_kit._statistics.trial import Trial
from backtest_kit._values.content import digest, digest_library
from backtest_kit._values.errors import (
    BacktestKitError,
    RegistrationError,
    StateError,
    StrategyFailedError,
)
from backtest_kit._values.events import ErrorEvent
from backtest_kit._values.schemas import ExchangeSchema, FrameSchema, StrategySchema
from backtest_kit._walker.grid import make_strategy
from backtest_kit._walker.resume import digest_data, key_of, settings
from backtest_kit._walker.store import WalkStore
from backtest_kit._walker.trial import Look, joined, run_trial

if TYPE_CHECKING:
    import optuna

#: A pruner is asked after each of so many equal parts of the frame.
PARTS: Final = 10


class _Pruned(Exception):  # noqa: N818 - an outcome
    pass


class Study:
    """One study of Optuna's: asks for parameters, runs them, tells what came of it."""

    def __init__(
        self,
        engine: Engine,
        factory: Callable[..., Any],
        symbols: tuple[str, ...],
        exchange: ExchangeSchema,
        frame: FrameSchema,
        metrics: tuple[str, ...],
        name: str,
        store: WalkStore | None,
    ) -> None:
        self._engine = engine
        self._risks = engine.risks.copy()
        self._factory = factory
        self._symbols = symbols
        self._exchange = exchange
        self._frame = frame
        self._metrics = metrics
        self._name = name
        self._store = store
        self._data = ""
        self._code: str | None = None
        #: By name, so that no parameters are run twice.
        self._trials: dict[str, Trial] = {}

    def begin(
        self,
        parameters: Mapping[str, Any],
        seed: int,
        sampler: Any,
        pruner: optuna.pruners.BasePruner | None,
        storage: Any,
    ) -> None:
        """Open the study."""
        self._optuna = optuna = _optuna()
        self._space = {name: _distribution(optuna, name, v) for name, v in parameters.items()}
        if not self._space:
            raise RegistrationError("search: parameters is empty; name at least one")
        if pruner is not None and len(self._metrics) > 1:
            raise RegistrationError("search: a pruner takes a single metric")
        self._prunes = pruner is not None
        self._seed = seed
        self._sampler = sampler
        folder = None if self._store is None or storage is not None else self._store.path.parent
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                storage = f"sqlite:///{(folder / 'optuna.db').absolute()}"
            self.study = optuna.create_study(
                storage=storage,
                study_name=self._name,
                directions=["maximize"] * len(self._metrics),
                pruner=pruner or optuna.pruners.NopPruner(),
                sampler=self._made(0),
                load_if_exists=True,
            )
        except Exception as error:
            if folder is None:
                raise
            raise StateError(
                f"the study in {folder / 'optuna.db'} can't be used: {describe(error)}; make the "
                "folder writable, choose another one, or move the file away to begin anew"
            ) from error
        self._kept = storage is not None
        self._done = self._total = 0
        self._over = False

    async def run(self, trials: int) -> None:
        """Run trials until there are as many as wanted."""
        try:
            self._data = await digest_data(self._exchange)
            risks = {risk.name: [*risk.validations] for risk in self._risks.list()}
            self._code = digest(self._factory, risks)
            mark = self._mark()
        except (BacktestKitError, OSError) as error:
            if self._kept:
                raise RegistrationError(
                    f"search {self._name!r} can't be kept, since it can't be told later whether "
                    f"it is the same: {error}"
                ) from error
        else:
            self._claim(mark)
        self._done = self._tidy()
        if self._done < trials:
            self._total = trials
            self._loop = asyncio.get_running_loop()
            # Optuna's loop is not async: it asks, in a thread, for trials that run in ours
            try:
                await asyncio.to_thread(self._optimize, trials - self._done)
            finally:
                self._over = True
        await self._engine.bus.drain()

    def _optimize(self, trials: int) -> None:
        self.study.sampler = self._made(self._done)
        self.study.optimize(self._objective, n_trials=trials, callbacks=[self._next])

    def _mark(self) -> str:
        """Return the digest of all that the values of this study depend on."""
        line = self._frame.timeline
        return digest(
            digest_library(),
            (settings(self._engine), self._code, self._exchange.name, self._frame.name),
            (self._symbols, (line.start, line.stop, line.step), self._data, self._metrics),
            {name: repr(distribution) for name, distribution in self._space.items()},
            self._seed,
        )

    def _claim(self, mark: str) -> None:
        known = self.study.user_attrs.get("fingerprint")
        if known is not None and known != mark:
            raise RegistrationError(
                f"search {self._name!r} was begun with other code, candles, parameters, metrics, "
                "settings or another seed, or its code has noted something since (then begin in "
                "a new process); give it another study_name"
            )
        if known is None:
            self.study.set_user_attr("fingerprint", mark)

    def _tidy(self) -> int:
        """Give up what a killed process left half done; return how many trials there are."""
        state = self._optuna.trial.TrialState
        for left in self.study.get_trials(deepcopy=False, states=(state.RUNNING,)):
            self.study.tell(left.number, state=state.FAIL)
        return sum(
            trial.state in (state.COMPLETE, state.PRUNED) or "why" in trial.user_attrs
            for trial in self.study.get_trials(deepcopy=False)
        )

    def _made(self, place: int) -> Any:
        """Return the sampler for a trial: the same for the same place, whatever was before."""
        seed = int(np.random.SeedSequence([self._seed, place]).generate_state(1)[0])
        if self._sampler is None:
            return self._optuna.samplers.TPESampler(seed=seed)
        if isinstance(self._sampler, self._optuna.samplers.BaseSampler):
            return self._sampler
        return self._sampler(seed)

    def _objective(self, asked: Any) -> tuple[float, ...] | None:
        """Run what Optuna asks for, and return the values of the metrics."""
        if self._over:
            raise CancelledError
        schema = self.schema({n: _suggest(asked, n, of) for n, of in self._space.items()})
        try:
            if schema is None:
                raise RegistrationError("the factory leaves these parameters out")
            work = self._trial(schema, asked if self._prunes else None)
            trial = asyncio.run_coroutine_threadsafe(work, self._loop).result()
            values = self._values(trial)
            if values is None:
                raise BacktestKitError(f"{' or '.join(self._metrics)} is no finite number")
        except _Pruned:
            raise self._optuna.TrialPruned from None
        except (StateError, CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - a strategy that fails is skipped
            asked.set_user_attr("why", describe(error))
            return None  # to Optuna, a trial that failed
        return values

    def _next(self, study: Any, trial: Any) -> None:
        """After each trial: tell of it, and make the sampler of the next one."""
        self._done += 1
        self.study.sampler = self._made(self._done)
        self._loop.call_soon_threadsafe(self._tell, trial)

    def schema(self, chosen: Mapping[str, Any]) -> StrategySchema | None:
        """Return the strategy of parameters, `None` where the factory leaves them out."""
        return make_strategy(self._factory, {name: chosen[name] for name in self._space})

    def _values(self, trial: Trial) -> tuple[float, ...] | None:
        if trial.statistics is None:
            return None
        values = [metric_of(trial.statistics, name) for name in self._metrics]
        found = tuple(value for value in values if value is not None)
        return found if len(found) == len(values) else None

    async def _trial(self, schema: StrategySchema, asked: Any = None) -> Trial:
        """Return a trial: known, kept, or run; `asked` is told how it goes, to prune it."""
        if schema.name in self._trials:
            return self._trials[schema.name]
        key = None
        if self._store is not None and self._code is not None:
            # of the factory as it was at the beginning, whatever its code has noted since
            variant = digest(settings(self._engine), self._code, schema.name)
            place = (self._symbols, self._exchange, self._frame, self._data)
            key = key_of(variant, schema.name, *place)
        known = {} if key is None or self._store is None else self._store.find([key])
        what = (self._engine, schema, self._symbols, self._exchange, self._frame)
        try:
            if key is not None and key.fingerprint in known and asked is None:
                trial = known[key.fingerprint]
            else:
                line = self._frame.timeline
                look = None if asked is None else _pruning(self._metrics[0], asked, line)
                trial = await run_trial(*what, look, self._risks)
        except _Pruned:
            if key is not None and self._store is not None:
                await asyncio.to_thread(self._store.put, key, None)
            raise
        if key is not None and self._store is not None:
            await asyncio.to_thread(self._store.put, key, trial)
        self._trials[schema.name] = trial
        return trial

    def _tell(self, trial: Any) -> None:
        bus = self._engine.bus
        if (why := trial.user_attrs.get("why")) is not None:
            error = StrategyFailedError(f"search {self._name!r}, {trial.params}: {why}")
            self._engine.report(ErrorEvent(where="search", error=error))
        if bus.wanted("walker_progress"):
            event = WalkerProgressEvent(
                walker_name=self._name,
                symbols=self._symbols,
                exchange_name=self._exchange.name,
                frame_name=self._frame.name,
                total_strategies=self._total,
                processed_strategies=trial.number + 1,
                progress=min(1.0, (trial.number + 1) / self._total),
            )
            bus.emit(event, "walker_progress")

    async def found(self) -> list[tuple[Any, Trial]]:
        """Return Optuna's finished trials with ours, in order.

        Those of an earlier call are run again where nothing keeps them.
        """
        state = self._optuna.trial.TrialState
        complete = self.study.get_trials(deepcopy=False, states=(state.COMPLETE,))
        return [(trial, await self._again(trial.params)) for trial in complete]

    def count(self) -> tuple[int, int, int]:
        """Return how many trials were pruned, how many failed, and how many variants there were."""
        state = self._optuna.trial.TrialState
        trials = self.study.get_trials(deepcopy=False)
        return (
            sum(trial.state == state.PRUNED for trial in trials),
            sum("why" in trial.user_attrs for trial in trials),
            len({str(sorted(trial.params.items())) for trial in trials if trial.params}),
        )

    def parameters(self, trial: Any) -> dict[str, Any]:
        """Return the parameters of one of Optuna's trials, in the order given."""
        return {name: trial.params[name] for name in self._space}

    async def _again(self, params: Mapping[str, Any]) -> Trial:
        schema = self.schema(params)
        assert schema is not None
        return await self._trial(schema)


def _pruning(metric: str, asked: Any, line: range) -> Look:
    """Return what tells one of Optuna's trials how it goes, and raises where it is pruned."""
    length = line[-1] - line[0]
    ends = [(step, line[0] + length * step // PARTS) for step in range(1, PARTS)]

    def look(records: Sequence[RunRecord]) -> None:
        while ends and min(record.until for record in records) >= ends[0][1]:
            step, end = ends.pop(0)
            r, opened, closed, _ = joined(records)
            n = int(np.searchsorted(closed, end, side="right"))
            value = metric_of(summarize(r[:n], opened[:n], closed[:n], (line[0], end)), metric)
            if value is not None:
                asked.report(value, step)
                if asked.should_prune():
                    raise _Pruned

    return look


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise BacktestKitError("search needs Optuna: pip install 'backtest-kit[optuna]'") from None
    return optuna


def _suggest(asked: Any, name: str, of: Any) -> Any:
    """Ask one of Optuna's trials for a parameter."""
    kind = type(of).__name__
    if kind == "CategoricalDistribution":
        return asked.suggest_categorical(name, of.choices)
    suggest = asked.suggest_int if kind == "IntDistribution" else asked.suggest_float
    return suggest(name, of.low, of.high, step=of.step, log=of.log)


def _distribution(optuna: Any, name: str, given: Any) -> Any:
    """Return where a parameter's values come from."""
    of = optuna.distributions
    if isinstance(given, of.BaseDistribution):
        return given
    if isinstance(given, range) and len(given) and given.step > 0:
        return of.IntDistribution(given.start, given[-1], step=given.step)
    if isinstance(given, str) or not isinstance(given, Iterable) or not (values := [*given]):
        raise RegistrationError(
            f"search: {name}={given!r} must be a range, a list of values, or a distribution of "
            "Optuna's"
        )
    simple = all(value is None or isinstance(value, bool | int | float | str) for value in values)
    if simple and len(set(values)) == len(values):
        return of.CategoricalDistribution(values)
    raise RegistrationError(f"search: {name} must have numbers, texts or truth values, each once")
