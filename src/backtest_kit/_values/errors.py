"""Everything backtest-kit raises on purpose.

Named by what the reader does next::

    BacktestKitError
      ArgumentError          an argument has a value without a meaning (also ValueError)
      ConfigError            a setting is unknown or out of range      (also ValueError)
      RegistrationError      a schema is malformed or its name taken   (also ValueError)
      UnknownNameError       nothing is registered under this name     (also LookupError)
      ContextError           an ambient function was called outside a run (also RuntimeError)
      SignalError            a strategy proposed an invalid signal     (also ValueError)
      ActionError            an action on an open position is not allowed (also ValueError)
      PeekingError           an array strategy's answer depends on later candles
      StrategyFileError      a strategy file can't be loaded
      StrategyFailedError    a strategy of a walk raised whenever it was asked, or shares state
      WorkerError            a trial can't be sent to a worker, or its worker is gone
      FingerprintError       whether a trial is the same as an earlier one can't be told
      StateError             live state can't be read or written
        StateOwnedError      another process runs on the same state
        NotRunningError      a command was sent to a live run that does not run
        CorruptStateError    a document of the state is damaged; it was set aside
      MissedStepsError       a live run could not act at some minutes
      ClockError             the wall clock went back
      CallbackTimeoutError   a callback of a live run took too long
      ListenerBehindError    a listener of live runs is far behind
      DataError
        BadCandlesError      candles break a rule; asking again would not help
        SuspiciousCandleError  a price is so far off that it may be a bad print; told, not raised
        DataRangeError       asked for candles before the data begin or after they end
          BeforeDataError      before they begin; at the start of a run: warming up
        GapError             a candle is missing and gap_policy is "raise"
        FetchError           an exchange kept failing after all retries
        TryLaterError        an exchange says when to ask again; raised by `get_candles`
        ExchangeRefusedError an exchange refused, and would again (unknown symbol, bad key)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BacktestKitError(Exception):
    """Base of every error raised on purpose by backtest-kit."""


class ArgumentError(BacktestKitError, ValueError):
    """An argument has a value that has no meaning here."""


class ConfigError(BacktestKitError, ValueError):
    """A setting is unknown or its value out of range."""


class RegistrationError(BacktestKitError, ValueError):
    """A schema is malformed, or its name is already taken."""


class UnknownNameError(BacktestKitError, LookupError):
    """Nothing is registered under this name."""


class ContextError(BacktestKitError, RuntimeError):
    """A function that needs a running strategy was called outside one."""


class SignalError(BacktestKitError, ValueError):
    """A strategy proposed an invalid signal; `problems` lists every reason."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("invalid signal: " + "; ".join(self.problems))


class ActionError(BacktestKitError, ValueError):
    """An action on an open position is not allowed as things are; the position is as it was."""


class PeekingError(BacktestKitError):
    """An array strategy's answer depends on candles later than its own."""


class StrategyFileError(BacktestKitError):
    """A strategy file can't be loaded, or registers nothing to run."""


class StrategyFailedError(BacktestKitError):
    """A strategy of a walk raised whenever it was asked, or shares state; it has no result.

    `changed` says where in its code its trial has changed state; `began_with_others` that it began
    with what another strategy had changed.
    """

    changed: tuple[str, ...] = ()
    began_with_others: bool = False


class WorkerError(BacktestKitError):
    """A trial can't be sent to a worker, or the worker is gone."""


class FingerprintError(BacktestKitError):
    """Whether a trial is the same as an earlier one can't be told; it is run again."""


class StateError(BacktestKitError):
    """Live state can't be read or written; nothing was reported that is not stored."""


class StateOwnedError(StateError):
    """Another process runs on the same state; the message names it."""


class NotRunningError(StateError):
    """A command was sent to a live run that does not run."""


class CorruptStateError(StateError):
    """A document of the live state is damaged; it was set aside, never deleted."""


class MissedStepsError(BacktestKitError):
    """A live run could not act at some minutes; what lives was followed through them."""


class ClockError(BacktestKitError):
    """The wall clock has gone back; no minute is stepped twice."""


class CallbackTimeoutError(BacktestKitError):
    """A callback of a live run took longer than `callback_timeout_seconds`."""


class ListenerBehindError(BacktestKitError):
    """A listener of live runs is far behind, or left something unheard; nothing waits for it."""


class DataError(BacktestKitError):
    """Base of everything wrong with market data."""


class BadCandlesError(DataError, ValueError):
    """Candles break a rule; the message names the first one that does."""


class SuspiciousCandleError(DataError):
    """A candle has a price so far off that it may be a bad print; emitted, never raised."""


class DataRangeError(DataError):
    """Candles were asked for where there are none: before the data begin or after they end."""


class BeforeDataError(DataRangeError):
    """Candles were asked for from before the data begin; at the start of a run: warming up."""


class GapError(DataError):
    """A candle is missing and `gap_policy` is "raise"."""


class FetchError(DataError):
    """An exchange kept failing after all retries; the last failure is the cause."""


class TryLaterError(DataError):
    """An exchange asks to be left alone for a while; any `get_candles` may raise it.

    `after` is for how many seconds, `None` where it did not say. Until then nothing more is asked
    of the exchange, for any symbol. It counts as a failed attempt; a run sees it as the cause of a
    `FetchError` at most.
    """

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class ExchangeRefusedError(DataError):
    """An exchange refused what asking again would not change: an unknown symbol, a bad key."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the tail of an error message: the nearest known name, and all of them."""
    names = sorted(known)
    if not names:
        return "; there are none yet"
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} (there are: {', '.join(names)})"
