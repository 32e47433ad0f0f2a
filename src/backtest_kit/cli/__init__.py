"""The command line. User mistakes are one clear line and exit code 2, never a traceback."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from backtest_kit._values.errors import BacktestKitError, DataError, StateError
from backtest_kit._values.text import for_terminal
from backtest_kit.cli.account import account
from backtest_kit.cli.backtest import backtest
from backtest_kit.cli.check import check
from backtest_kit.cli.data import data
from backtest_kit.cli.demo import demo
from backtest_kit.cli.exit_codes import FAILED, INTERRUPTED, MISUSE
from backtest_kit.cli.init import init
from backtest_kit.cli.live import live
from backtest_kit.cli.report import report
from backtest_kit.cli.runs import runs
from backtest_kit.cli.send import send
from backtest_kit.cli.state import state
from backtest_kit.cli.walk import walk


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="backtest-kit")
def cli() -> None:
    """Backtest trading strategies, run them live, compare them; each is written once.

    A strategy is a Python file that registers what it needs:

    \b
        backtest-kit demo
        backtest-kit backtest my_strategy.py --symbol BTCUSDT --data BTCUSDT.parquet
        backtest-kit walk my_strategies.py --symbol BTCUSDT --data BTCUSDT.parquet
        backtest-kit live my_strategy.py --symbol BTC/USDT --exchange binance --paper
    """


for command in (
    *(account, backtest, check, data, demo, init, live, report, runs, send, state, walk),
):
    cli.add_command(command)


def main() -> None:
    """Run the command line and exit."""
    _open_closed_streams()
    try:
        code = cli.main(standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has seen enough: `| head`
        _close_quietly()
        sys.exit(FAILED)
    except click.ClickException as error:
        hint = getattr(error, "ctx", None)
        usage = f" (see {hint.command_path} --help)" if hint is not None else ""
        _refuse(f"{error.format_message()}{usage}", MISUSE)
    except (click.Abort, KeyboardInterrupt):
        _refuse("interrupted", INTERRUPTED)
    except (DataError, StateError) as error:
        _refuse(str(error), FAILED)
    except BacktestKitError as error:
        _refuse(str(error), MISUSE)
    except OSError as error:
        _refuse(str(error), FAILED)
    sys.exit(code if isinstance(code, int) else 0)


def _open_closed_streams() -> None:
    """Let what is written to a stream that was closed before (`>&-`) go nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115


def _refuse(text: str, code: int) -> NoReturn:
    print(f"backtest-kit: {for_terminal(text)}", file=sys.stderr)  # noqa: T201
    sys.exit(code)


def _close_quietly() -> None:
    """Let what is still buffered go nowhere: Python would complain of it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
