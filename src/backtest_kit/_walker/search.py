"""`bk.search`: parameters chosen by Optuna, in batches of trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from backtest_kit._engine.engine import current_engine
from backtest_kit._engine.task import run_blocking
from backtest_kit._reports.table import markdown_table, number, plain
from backtest_kit._reports.walker import walker_report
from backtest_kit._statistics.ranking import WalkerData, rank
from backtest_kit._statistics.trial_result import OtherTrial
from backtest_kit._values.errors import RegistrationError, did_you_mean
from backtest_kit._values.numbers import is_whole
from backtest_kit._values.schemas import (
    ACCOUNT_METRICS,
    BENCHMARKS,
    METRICS,
    AccountMetric,
    Benchmark,
    Metric,
    StrategySchema,
    WalkerSchema,
)
from backtest_kit._walker.benchmarks import bins_against, compared_with, markets_for
from backtest_kit._walker.pool_runner import PoolRunner
from backtest_kit._walker.runner import GrowingRunner, InProcessRunner, Workers, check_workers
from backtest_kit._walker.search_space import Constraints
from backtest_kit._walker.store import WalkStore
from backtest_kit._walker.study import Study
from backtest_kit._walker.trial import TrialSetup
from backtest_kit._walker.walk import symbols_of

if TYPE_CHECKING:
    import optuna

#: How many trials are chosen at a time where an executor runs them; the same on every machine.
BATCH: Final = 8


class SearchTrial(msgspec.Struct, frozen=True, kw_only=True):
    """A finished trial of a search: its parameters, the values of the metrics, and its strategy."""

    parameters: dict[str, Any]
    values: tuple[float, ...]
    strategy: StrategySchema


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a search.

    `front` is the Pareto front: the trials that no other trial beats in every metric, the best by
    the first metric first; with one metric, the best trial alone. `data` ranks all finished trials,
    as a walk does. `pruned` trials were ended early; `failed` ones raised, or had no finite value;
    `infeasible` ones broke a constraint, and are neither in `front` nor ranked. `study` is Optuna's
    own.
    """

    front: tuple[SearchTrial, ...]
    metrics: tuple[str, ...]
    data: WalkerData
    finished: int
    pruned: int
    failed: int
    infeasible: int
    study: Any

    @property
    def best(self) -> SearchTrial | None:
        """The best trial by the first metric; `None` if none finished."""
        return self.front[0] if self.front else None

    def get_report(self) -> str:
        """Return a report as Markdown."""
        rows = [
            (
                ", ".join(f"{name}={value!r}" for name, value in trial.parameters.items()),
                *(number(value, 3) for value in trial.values),
            )
            for trial in self.front
        ]
        front = markdown_table(("Parameters", *self.metrics), rows) if rows else "Nothing."
        title = "Pareto front" if len(self.metrics) > 1 else "Best"
        counts = (
            f"{self.finished} trials finished ({self.infeasible} of them broke a constraint), "
            f"{self.pruned} were pruned, {self.failed} failed."
        )
        head = [
            f"# Search {plain(self.data.walker_name)} on {plain(', '.join(self.data.symbols))}",
            counts,
            f"## {title}",
            front,
        ]
        body = walker_report(self.data).split("\n", 1)[1]
        return "\n\n".join(head) + "\n" + body


def search(
    strategy_factory: Callable[..., Any],
    symbol: str | Sequence[str],
    *,
    exchange_name: str,
    frame_name: str,
    parameters: Mapping[str, Any],
    trials: int,
    metric: str | Sequence[str] = "sharpe_ratio",
    constraints: Constraints | None = None,
    account_name: str | None = None,
    benchmark: Benchmark = 0,
    executor: Workers | None = None,
    batch: int | None = None,
    seed: int = 0,
    sampler: Any = None,
    pruner: optuna.pruners.BasePruner | None = None,
    store: str | Path | None = None,
    storage: Any = None,
    study_name: str | None = None,
) -> SearchResult:
    """Search parameters of a strategy with Optuna (extra `optuna`); blocks until it is done.

    `strategy_factory` is as for `grid`. Each of `parameters` is a `range` (integers), a list of
    choices, or an Optuna distribution. Several metrics give a Pareto front; more is better in each.
    `trials` is the number of trials in all, those of earlier calls included. A trial that breaks
    one of the `constraints` can't be the best; Optuna's samplers learn to avoid it. With
    `account_name` each trial plays with the money of this account, from its balance on; then the
    metrics of an account can be searched by. `benchmark` is what the best has to beat, as for
    walks: 0, `"hold"` or `"random"`.

    `executor` runs several trials at a time, as for walks: `"processes"`, or any
    `concurrent.futures.Executor`. Trials are chosen in batches, each from the results before it, so
    what is found depends on `batch` (by default 1, with an executor 8), but not on the executor nor
    on which trial ends first.

    `sampler` is an Optuna sampler, or a function that makes one from a seed; by default
    `optuna.samplers.TPESampler`. It is made anew for each trial, from `seed` and the trial's
    number, so that an interrupted search continues exactly as it would have. A `pruner` sees the
    metric after each tenth of the frame, and takes a single metric; with
    `optuna.pruners.SuccessiveHalvingPruner` that is ASHA. Trials then run over the first tenth of
    the frame, over three, and over all of it, each time from its beginning, and those that are
    pruned end there. Of an account's metric it sees what each of the shorter runs came to.

    `store` is a folder for the study (optuna.db) and for finished trials (walks.db, as for walks);
    `storage` is an Optuna storage, used instead of optuna.db. A study continues only with the same
    code, candles and settings. Only one process at a time may search a study. Progress goes to
    `listen_walker_progress`.

    Raises:
        RegistrationError: `trials`, `batch`, `seed`, a parameter, a metric or the pruner is wrong;
            the factory raises; the study was made with something else.
        TypeError: the executor is none.
        WorkerError: something can't be sent to a worker, or the executor takes no more work.
        UnknownNameError: the exchange, the frame or the account is not registered.
        BacktestKitError: Optuna is not installed.
        StateError: the store can't be read or written.
    """
    check_workers(executor)
    batch = (1 if executor is None else BATCH) if batch is None else batch
    for what, value, lowest in (("trials", trials, 1), ("batch", batch, 1), ("seed", seed, 0)):
        if not is_whole(value, lowest):
            raise RegistrationError(
                f"search: {what}={value!r} must be a whole number, {lowest} or more"
            )
    engine = current_engine()
    setup = TrialSetup(
        engine,
        symbols_of(symbol),
        engine.exchanges.get(exchange_name),
        engine.frames.get(frame_name),
        engine.risks.copy(),
        None if account_name is None else engine.accounts.get(account_name),
        engine.sizings.copy(),
    )
    metrics = _metrics(metric, account_name)
    constraints = constraints or Constraints()
    if account_name is None and constraints.max_account_drawdown_percent is not None:
        raise RegistrationError(
            "search: the constraint max_account_drawdown_percent needs an account_name"
        )
    if benchmark not in BENCHMARKS:
        raise RegistrationError(f"search: benchmark={benchmark!r} must be 0, 'hold' or 'random'")
    name = study_name or str(getattr(strategy_factory, "__name__", "search"))
    walk_store = None if store is None else WalkStore(store)
    runner: GrowingRunner = InProcessRunner(setup)
    if executor is not None:
        risk_names = [risk.name for risk in engine.risks.list()]
        runner = PoolRunner(setup, (), executor, risk_names=risk_names)
    study = Study(setup, strategy_factory, metrics, constraints, name, walk_store, runner)
    study.begin(parameters, batch, seed, sampler, pruner, storage)

    async def work() -> SearchResult:
        try:
            await runner.open()
            await study.run(trials)
            ranked, broken = await study.finished()
            rows = await compared_with(setup, ranked, metrics[0])
            markets = await markets_for(setup, benchmark)
        finally:
            await runner.close()
        pruned, failed, infeasible, variants = study.counts()
        # each strategy once
        distinct = [*{result.strategy_name: result for result in ranked}.values()]
        apart = {result.strategy_name: result for result in broken}.values()
        others = [OtherTrial(each.trades, each.since, each.until) for each in apart]
        if walk_store is not None:
            line = setup.frame.timeline
            ledger = walk_store.variants_tried(setup.symbols, line[0], line[-1], study.hours)
            variants = max(variants, ledger)
            own = study.variants(result.strategy_name for result in (*ranked, *broken))
            others += walk_store.trades_of_others(line[0], line[-1], study.hours, own)
        found = rank(
            WalkerSchema(
                walker_name=name,
                exchange_name=setup.exchange.name,
                frame_name=setup.frame.name,
                strategies=[result.strategy_name for result in distinct] or ["none"],
                metric=metrics[0],
                account_name=account_name,
                benchmark=benchmark,
            ),
            setup.symbols,
            distinct,
            variants,
            base_interval=setup.base_interval(),
            benchmark_bins=bins_against(setup, markets, benchmark, distinct),
            benchmarks=rows,
            others=others,
        )
        judged = found.verdict
        if infeasible and not distinct:
            sentence = "Nothing to rank: each trial that finished broke a constraint."
            judged = msgspec.structs.replace(judged, sentence=sentence)
        return SearchResult(
            front=_front(study),
            metrics=metrics,
            data=msgspec.structs.replace(
                found, verdict=judged, unseen=study.unseen, account=setup.account
            ),
            finished=len(ranked) + infeasible,
            pruned=pruned,
            failed=failed,
            infeasible=infeasible,
            study=study.study,
        )

    return run_blocking(work)


def _front(study: Study) -> tuple[SearchTrial, ...]:
    """Return the Pareto front, the best by the first metric first, each strategy once."""
    front: dict[str, SearchTrial] = {}
    for trial in sorted(study.study.best_trials, key=lambda trial: -trial.values[0]):
        parameters = study.parameters(trial)
        schema = study.schema(parameters)
        if schema is not None and schema.name not in front:
            values = tuple(trial.values)
            front[schema.name] = SearchTrial(parameters=parameters, values=values, strategy=schema)
    return tuple(front.values())


def _metrics(
    given: str | Sequence[str], account_name: str | None
) -> tuple[Metric | AccountMetric, ...]:
    names = (given,) if isinstance(given, str) else tuple(given)
    known = (*METRICS, *ACCOUNT_METRICS)
    for name in names:
        if name not in known:
            raise RegistrationError(
                f"search: unknown metric {name!r}{did_you_mean(str(name), known)}"
            )
        if name in ACCOUNT_METRICS and account_name is None:
            raise RegistrationError(f"search: metric={name!r} needs an account_name")
    if not names or len(set(names)) < len(names):
        raise RegistrationError(f"search: metric={given!r} must be one or several, each once")
    return cast("tuple[Metric | AccountMetric, ...]", names)
