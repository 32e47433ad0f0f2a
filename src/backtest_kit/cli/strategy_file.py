"""Load a Python file that registers strategies."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType

import click

from backtest_kit._engine.engine import current_engine
from backtest_kit._engine.record import Records
from backtest_kit._values.errors import StrategyFileError
from backtest_kit._values.places import place_of


def load(path: Path, *, tracebacks: bool = False) -> ModuleType:
    """Run a strategy file on the current engine, and return it as a module.

    What it prints goes to standard error, and runs of its own are forgotten: the command's output
    is the command's. `tracebacks`: errors are shown with them, from here on.

    Raises:
        StrategyFileError: it is no file, does not parse, raises, or registers no strategy; the
            message names the line.
    """
    engine = current_engine()
    engine.tracebacks = tracebacks
    if not path.is_file():
        raise StrategyFileError(f"{path} is not a file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise StrategyFileError(f"{path} is not a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    # it stays: a strategy may import its neighbours only when it is asked
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules[path.stem] = module
    try:
        with redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except SyntaxError as error:
        text = f": {error.text.strip()}" if error.text else ""
        raise StrategyFileError(f"{error.filename}:{error.lineno}: {error.msg}{text}") from None
    except Exception as error:
        if tracebacks:
            traceback.print_exception(error)
        place, what = place_of(error), f"{type(error).__name__}: {error}"
        if place is None:
            raise StrategyFileError(f"{path}: {what}") from error
        code = f" ({place.code})" if place.code else ""
        raise StrategyFileError(f"{place.file}:{place.line}: {what}{code}") from error
    if engine.records.all():
        click.echo(
            f"backtest-kit: {path} made runs of its own while it was loaded, which are in no "
            'report; put them under `if __name__ == "__main__":`',
            err=True,
        )
        engine.records, engine.walks = Records(), {}
    if not engine.strategies.list():
        raise StrategyFileError(
            f"{path} registers no strategy; decorate a function with "
            '@backtest_kit.strategy("name", interval="5m")'
        )
    return module
