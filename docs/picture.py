"""Take the picture at the top of the README: the page of the backtest below it.

    python docs/picture.py

It needs Chromium (Debian's package `chromium`) and the extra `report`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import backtest_kit as bk

PICTURE = Path(__file__).with_name("report.png")
NAMES = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1280, 1150

browser = next(filter(None, map(shutil.which, NAMES)), None)
if browser is None:
    sys.exit("no Chromium is installed (Debian's package chromium)")
with tempfile.TemporaryDirectory() as folder:
    project = Path(folder) / "my_project"
    command = [sys.executable, "-m", "backtest_kit", "init", str(project)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own
    os.chdir(project)
    sys.path.insert(0, str(project))

    from strategy import crossover

    result = bk.backtest("data/RANDOM.parquet", crossover)
    page = result.report("report.html")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--window-size={WIDTH},{HEIGHT}", "--virtual-time-budget=10000"]
    command += [f"--user-data-dir={folder}/browser", f"--screenshot={PICTURE}"]
    command.append(page.resolve().as_uri())
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)  # noqa: S603
    os.chdir(Path(__file__).parent)
