"""What a search may choose, and what it has to keep to: parameters as Optuna's distributions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from backtest_kit._statistics.trial_result import TrialResult
from backtest_kit._values.errors import BacktestKitError, RegistrationError
from backtest_kit._values.numbers import is_amount, is_whole


class Constraints(msgspec.Struct, frozen=True, kw_only=True):
    """What the figures of a trial must keep to, or it can't be the best; `None`: anything.

    `min_trades` and `min_losses` are the least numbers of trades and of losing ones,
    `max_drawdown_percent` is the greatest drawdown of the compounded curve of trades, in percent,
    `max_account_drawdown_percent` that of the account over minutes.

    Raises:
        RegistrationError: a number is not a whole one of 0 or more, or a drawdown not above 0.
    """

    min_trades: int | None = None
    min_losses: int | None = None
    max_drawdown_percent: float | None = None
    max_account_drawdown_percent: float | None = None

    def __post_init__(self) -> None:
        for name in ("min_trades", "min_losses"):
            value = getattr(self, name)
            if value is not None and not is_whole(value, 0):
                raise RegistrationError(
                    f"constraints: {name}={value!r} must be a whole number, 0 or more"
                )
        for name in ("max_drawdown_percent", "max_account_drawdown_percent"):
            most = getattr(self, name)
            if most is not None and not is_amount(most):
                raise RegistrationError(f"constraints: {name}={most!r} must be a number above 0")

    def excess(self, result: TrialResult) -> dict[str, float]:
        """Return by how much each constraint is broken; 0 or less: it is kept."""
        statistics, account, found = result.statistics, result.account, dict[str, float]()
        assert statistics is not None
        if self.min_trades is not None:
            found["min_trades"] = float(self.min_trades - statistics.total_signals)
        if self.min_losses is not None:
            found["min_losses"] = float(self.min_losses - statistics.loss_count)
        if self.max_drawdown_percent is not None:
            drawdown = statistics.max_drawdown_percent or 0.0
            found["max_drawdown_percent"] = drawdown - self.max_drawdown_percent
        if self.max_account_drawdown_percent is not None and account is not None:
            drawdown = account.max_drawdown_percent
            found["max_account_drawdown_percent"] = drawdown - self.max_account_drawdown_percent
        return found


def optuna_module() -> Any:
    """Return Optuna; raises BacktestKitError where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise BacktestKitError("search needs Optuna: pip install 'backtest-kit[optuna]'") from None
    return optuna


def distributions(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Optuna distribution of each parameter.

    Raises:
        RegistrationError: there is none, or one is neither a range, nor a list, nor a distribution.
    """
    if not parameters:
        raise RegistrationError("search: parameters is empty; name at least one")
    return {name: _distribution(name, given) for name, given in parameters.items()}


def _distribution(name: str, given: Any) -> Any:
    of = optuna_module().distributions
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
    raise RegistrationError(f"search: {name} must list numbers, strings or booleans, each once")
