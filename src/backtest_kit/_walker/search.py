"""`bk.search`: parameters chosen by Optuna, one trial after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from backtest_kit._engine.engine import current_engine
from backtest_kit._engine.task import run_blocking
from backtest_kit._reports.table import markdown_table, number, plain
from backtest_kit._reports.walker import walker_report
from backtest_kit._statistics.ranking import WalkerData, rank
from backtest_kit._values.errors import RegistrationError, did_you_mean
from backtest_kit._values.schemas import METRICS, Metric, StrategySchema, WalkerSchema
from backtest_kit._walker.store import WalkStore
from backtest_kit._walker.study import Study
from backtest_kit._walker.walk import symbols_of

if TYPE_CHECKING:
    import optuna


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A trial of a search: parameters, the values of the metrics, and the strategy itself."""

    parameters: dict[str, Any]
    values: tuple[float, ...]
    strategy: StrategySchema


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a search has found.

    `front` are the trials that no other beats in every metric, the best by the first metric first;
    with one metric, the best alone. `data` ranks all finished trials, as a walk does. `pruned` were
    given up early, `failed` raised or had no finite value. `study` is Optuna's own.
    """

    front: tuple[Found, ...]
    metrics: tuple[str, ...]
    data: WalkerData
    finished: int
    pruned: int
    failed: int
    study: Any

    @property
    def best(self) -> Found | None:
        """The best by the first metric."""
        return self.front[0] if self.front else None

    def get_report(self) -> str:
        """Return what was found as Markdown."""
        rows = [
            (
                ", ".join(f"{name}={value!r}" for name, value in found.parameters.items()),
                *(number(value, 3) for value in found.values),
            )
            for found in self.front
        ]
        front = markdown_table(("Parameters", *self.metrics), rows) if rows else "Nothing."
        title = "Pareto front" if len(self.metrics) > 1 else "Best"
        head = [
            f"# Search {plain(self.data.walker_name)} on {plain(', '.join(self.data.symbols))}",
            f"{self.finished} trials finished, {self.pruned} were pruned, {self.failed} failed.",
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
    seed: int = 0,
    sampler: Any = None,
    pruner: optuna.pruners.BasePruner | None = None,
    store: str | Path | None = None,
    storage: Any = None,
    study_name: str | None = None,
) -> SearchResult:
    """Search parameters of a strategy with Optuna (extra `optuna`); blocks until it is done.

    `strategy_factory` is as for `grid`. Each of `parameters` is a `range` (whole numbers), a list
    (one of these) or a distribution of Optuna's. Several metrics give a Pareto front; more is
    better in each. `trials` is how many there are to be in all, those of earlier calls included.

    `sampler` is one of Optuna's, or what makes one from a seed; by default
    `optuna.samplers.TPESampler`. It is made anew for each trial, from `seed` and the trial's
    number, so that a search that was broken off goes on as it would have. A `pruner` sees the
    metric after each tenth of the frame, and takes a single metric.

    `store` is a folder for the study (optuna.db) and for finished trials (walks.db, as for walks);
    `storage` is Optuna's, instead of the first. A study goes on only with the same code,
    candles and settings. One process at a time searches one study. Progress is told to
    `listen_walker_progress`.

    Raises:
        RegistrationError: a parameter, a metric or the pruner is wrong; the factory raises; the
            study was made with something else.
        UnknownNameError: the exchange or the frame is not registered.
        BacktestKitError: Optuna is not installed.
        StateError: the store can't be read or written.
    """
    engine = current_engine()
    symbols, metrics = symbols_of(symbol), _metrics(metric)
    exchange, frame = engine.exchanges.get(exchange_name), engine.frames.get(frame_name)
    name = study_name or str(getattr(strategy_factory, "__name__", "search"))
    kept = None if store is None else WalkStore(store)
    study = Study(engine, strategy_factory, symbols, exchange, frame, metrics, name, kept)
    study.begin(parameters, seed, sampler, pruner, storage)

    async def work() -> SearchResult:
        await study.run(trials)
        found = await study.found()
        pruned, failed, variants = study.count()
        ranked = list({trial.strategy_name: trial for _, trial in found}.values())
        walker = WalkerSchema(
            walker_name=name,
            exchange_name=exchange_name,
            frame_name=frame_name,
            strategies=[trial.strategy_name for trial in ranked] or ["none"],
            metric=metrics[0],
        )
        line = frame.timeline
        tried = 0 if kept is None else kept.tried(symbols, line[0], line[-1])
        return SearchResult(
            front=_front(study),
            metrics=metrics,
            data=rank(walker, symbols, ranked, max(tried, variants)),
            finished=len(found),
            pruned=pruned,
            failed=failed,
            study=study.study,
        )

    return run_blocking(work)


def _front(study: Study) -> tuple[Found, ...]:
    """Return what nothing beats, the best by the first metric first, each once."""
    front: dict[str, Found] = {}
    for trial in sorted(study.study.best_trials, key=lambda trial: -trial.values[0]):
        parameters = study.parameters(trial)
        schema = study.schema(parameters)
        if schema is not None and schema.name not in front:
            values = tuple(trial.values)
            front[schema.name] = Found(parameters=parameters, values=values, strategy=schema)
    return tuple(front.values())


def _metrics(given: str | Sequence[str]) -> tuple[Metric, ...]:
    names = (given,) if isinstance(given, str) else tuple(given)
    for name in names:
        if name not in METRICS:
            raise RegistrationError(
                f"search: unknown metric {name!r}{did_you_mean(str(name), METRICS)}"
            )
    if not names or len(set(names)) < len(names):
        raise RegistrationError(f"search: metric={given!r} must be one or several, each once")
    return cast("tuple[Metric, ...]", names)
