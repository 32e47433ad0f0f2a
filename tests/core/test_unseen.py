"""What code reads that its fingerprint can't see is named, and nothing else."""

import importlib
import sys
import textwrap

import pytest

from backtest_kit._walker.fingerprint import examine, fingerprint
from backtest_kit._walker.unseen import unseen_by

HEAD = """
import json
import os
from os import environ, getenv
from pathlib import Path
import numpy as np
import pandas as pd
from pandas import read_csv

class Candles:
    open = [1.0]

def f(given):
    # the code of a test
"""
READS = {
    "os.environ['A']": "environment variable 'A'",
    "os.environ.get('B', '1')": "environment variable 'B'",
    "os.getenv('C')": "environment variable 'C'",
    "environ['D']": "environment variable 'D'",
    "getenv('E')": "environment variable 'E'",
    "os.environ[given]": "environment variable",
    "'F' in os.environ": "environment variable",
    "open('a.txt')": "file 'a.txt'",
    "open(given)": "file",
    "Path('b.txt').read_text()": "file 'b.txt'",
    "Path('c.txt').open()": "file 'c.txt'",
    "given.read_bytes()": "file",
    "(given / 'd.txt').read_text()": "file 'd.txt'",
    "np.load('e.npy')": "file 'e.npy'",
    "np.loadtxt(given)": "file",
    "pd.read_parquet('f.parquet')": "file 'f.parquet'",
    "read_csv('g.csv')": "file 'g.csv'",
    "[os.environ['G'] for _ in given]": "environment variable 'G'",
}
LOCAL = {
    "import os as system; return system.environ['H']": "environment variable 'H'",
    "from os import sep, environ as e; return e['I']": "environment variable 'I'",
    "import numpy; return numpy.load('i.npy')": "file 'i.npy'",
}
NOTHING = [
    "given.open[-1]",
    "Candles.open",
    "np.mean(given)",
    "json.loads(given)",
    "given.load",
    "os.path.join('a', 'b')",
    "given.get('environ')",
    "'os.environ'",
]


def function(line):
    names = {"__name__": "__main__"}
    exec(compile(textwrap.dedent(HEAD) + f"    {line}\n", "own.py", "exec"), names)
    return names["f"]


@pytest.mark.parametrize("code", [*READS, *LOCAL])
def test_what_is_read_is_named_with_its_place(code):
    line = code if code in LOCAL else f"return {code}"
    expected = (READS | LOCAL)[code]
    (found,) = unseen_by(function(line))
    assert found.startswith(f"{expected} in f")
    assert found.endswith("(own.py:15)")


@pytest.mark.parametrize("code", NOTHING)
def test_what_reads_nothing_is_not_named(code):
    assert [*unseen_by(function(f"return {code}"))] == []


def test_what_a_helper_of_another_module_reads_is_named_once(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    helper = "import os\ndef level():\n    return os.environ['LEVEL']\nSET = os.environ.get('S')\n"
    (tmp_path / "own_reading.py").write_text(helper)
    importlib.invalidate_caches()
    try:
        module = importlib.import_module("own_reading")

        def get_signal(symbol, when):
            return module.level(), module.SET

        examined = examine([get_signal, get_signal, module])
    finally:
        sys.modules.pop("own_reading")
    place = "environment variable 'LEVEL' in level (own_reading.py:3)"
    assert examined.unseen == (place,), "a value that is read at the import is part of the rest"
    assert examined.fingerprint == fingerprint([get_signal, get_signal, module])
