"""Load a Python file that registers strategies."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from backtest_kit._engine.engine import current_engine
from backtest_kit._values.errors import StrategyFileError


def load(path: Path) -> ModuleType:
    """Run a strategy file on the current engine, and return it as a module.

    Raises:
        StrategyFileError: it is no file, does not parse, raises, or registers no strategy; the
            message names the line.
    """
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
        spec.loader.exec_module(module)
    except SyntaxError as error:
        text = f": {error.text.strip()}" if error.text else ""
        raise StrategyFileError(f"{error.filename}:{error.lineno}: {error.msg}{text}") from None
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        inside = [frame for frame in frames if Path(frame.filename) == path] or [frames[-1]]
        place = f"{inside[-1].filename}:{inside[-1].lineno}"
        raise StrategyFileError(f"{place}: {type(error).__name__}: {error}") from error
    if not current_engine().strategies.list():
        raise StrategyFileError(
            f"{path} registers no strategy; decorate a function with "
            '@backtest_kit.strategy("name", interval="5m")'
        )
    return module
