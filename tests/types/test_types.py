"""What a type checker finds in users' code: every planted mistake, and nothing else."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_overloads, get_type_hints

import pytest

import backtest_kit as bk
from backtest_kit._engine import register
from backtest_kit._values.config import Config, Settings
from command import PATIENCE

ROOT = Path(__file__).parents[2]
PLANTED = Path(__file__).with_name("planted_mistakes.py")
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
CHECKER = next(
    (
        path
        for name in ("basedpyright", "pyright")
        if (path := Path(sys.executable).with_name(name)).exists()
    ),
    None,
)
#: Libraries that no mistake is about: most of mypy's time would go into them.
NOT_CHECKED = (
    *("aiohttp", "bokeh", "ccxt", "cloudpickle", "dask", "distributed", "IPython", "matplotlib"),
    *("narwhals", "numba", "optuna", "polars", "prompt_toolkit", "pyarrow", "sqlalchemy"),
    "tornado",
)
SCHEMAS = {
    bk.add_exchange: bk.ExchangeSchema,
    bk.add_strategy: bk.StrategySchema,
    bk.add_frame: bk.FrameSchema,
    bk.add_risk: bk.RiskSchema,
    bk.add_sizing: bk.SizingSchema,
    bk.add_account: bk.AccountSchema,
    bk.add_walker: bk.WalkerSchema,
}


def planted():
    lines = PLANTED.read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith("# error")}


def run(*command, cwd):
    return subprocess.run(
        [*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


@pytest.mark.slow
def test_mypy_finds_each_planted_mistake_and_no_other(tmp_path):
    pytest.importorskip("mypy")
    config = tmp_path / "mypy.ini"
    config.write_text(
        f"[mypy]\nstrict = true\nmypy_path = {ROOT / 'src'}\n"
        "[mypy-backtest_kit.*]\nfollow_imports = silent\n"  # as where a user has installed it
        f"[mypy-{','.join(f'{name}.*' for name in NOT_CHECKED)}]\n"
        "ignore_missing_imports = true\nfollow_imports = skip\n"
    )
    options = ("--config-file", config, "--cache-dir", ROOT / ".mypy_cache" / "planted")
    done = run(sys.executable, "-m", "mypy", *options, PLANTED, *EXAMPLES, cwd=tmp_path)
    found = re.findall(r"^(.*?):(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    assert {Path(path).name for path, _, _ in found} == {PLANTED.name}, done.stdout
    assert {int(line) for _, line, _ in found} == planted(), done.stdout


@pytest.mark.slow
@pytest.mark.skipif(CHECKER is None, reason="neither pyright nor basedpyright is installed")
def test_pyright_finds_each_planted_mistake_and_no_other(tmp_path):
    config = {
        "include": [str(PLANTED), *map(str, EXAMPLES)],
        "extraPaths": [str(ROOT / "src")],
        "typeCheckingMode": "standard",
        "reportMissingImports": False,
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    python = ("--pythonpath", sys.executable)
    done = run(CHECKER, "--outputjson", "-p", tmp_path, *python, cwd=tmp_path)
    errors = [e for e in json.loads(done.stdout)["generalDiagnostics"] if e["severity"] == "error"]
    assert {Path(error["file"]).name for error in errors} == {PLANTED.name}, done.stdout
    assert {error["range"]["start"]["line"] + 1 for error in errors} == planted(), done.stdout


@pytest.mark.parametrize("function", SCHEMAS, ids=lambda function: function.__name__)
def test_the_signature_has_the_fields_of_the_schema_with_their_defaults(function):
    schema = SCHEMAS[function]
    *_, by_fields = get_overloads(function)
    parameters = inspect.signature(by_fields).parameters
    assert [*parameters] == [*schema.__struct_fields__, "replace"]
    needed = {n for n, p in parameters.items() if p.default is p.empty}
    defaults = dict(
        zip(reversed(schema.__struct_fields__), reversed(schema.__struct_defaults__), strict=False)
    )
    assert needed == {*schema.__struct_fields__} - {*defaults}
    assert {name: parameters[name].default for name in defaults} == defaults


def test_the_decorators_take_the_other_fields():
    given = {
        register.StrategyOptions: ({"strategy_name", "interval", "get_signal"}, bk.StrategySchema),
        register.ExchangeOptions: ({"exchange_name", "get_candles"}, bk.ExchangeSchema),
    }
    for options, (named, schema) in given.items():
        rest = {*schema.__struct_fields__} - named - {"get_signals", "make"}
        assert {*options.__annotations__} == rest | {"replace"}


def test_the_settings_for_type_checkers_are_those_of_config():
    fields = get_type_hints(Config)
    assert [*Settings.__annotations__] == [*Config.__struct_fields__]
    assert get_type_hints(Settings) == {name: fields[name] for name in Config.__struct_fields__}
