"""The command line. User mistakes are one clear line and exit code 2, never a traceback."""

from __future__ import annotations

import sys

import click

from backtest_kit._values.errors import BacktestKitError, DataError, StateError
from backtest_kit._values.text import for_terminal
from backtest_kit.cli.backtest import backtest
from backtest_kit.cli.check import check
from backtest_kit.cli.data import data
from backtest_kit.cli.demo import demo
from backtest_kit.cli.exit_codes import FAILED, INTERRUPTED, MISUSE
from backtest_kit.cli.live import live
from backtest_kit.cli.report import report
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


for command in (backtest, check, data, demo, live, report, state, walk):
    cli.add_command(command)


def main() -> None:
    """Run the command line and exit."""
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        hint = getattr(error, "ctx", None)
        usage = f" (see {hint.command_path} --help)" if hint is not None else ""
        print(f"backtest-kit: {for_terminal(error.format_message())}{usage}", file=sys.stderr)  # noqa: T201
        sys.exit(MISUSE)
    except (click.Abort, KeyboardInterrupt):
        print("backtest-kit: interrupted", file=sys.stderr)  # noqa: T201
        sys.exit(INTERRUPTED)
    except (DataError, StateError) as error:
        print(f"backtest-kit: {for_terminal(str(error))}", file=sys.stderr)  # noqa: T201
        sys.exit(FAILED)
    except BacktestKitError as error:
        print(f"backtest-kit: {for_terminal(str(error))}", file=sys.stderr)  # noqa: T201
        sys.exit(MISUSE)
    except OSError as error:
        print(f"backtest-kit: {for_terminal(str(error))}", file=sys.stderr)  # noqa: T201
        sys.exit(FAILED)
    sys.exit(code if isinstance(code, int) else 0)
