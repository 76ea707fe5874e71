"""`unstained annotate` in a real browser: keys, file, undo, reload, a second tab, and windows
answered only if seen.
"""

import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.torch import save_file

from src.common.scoring.networks.net import build, library_model
from tests.conftest import ARCH, REPO, default_params
from tests.pipeline.test_data_stages import plate

HEADER = "image_id,y,x,size,verdict,annotator,date"
KEEP = "# looked at on the big screen"
READY = (
    "document.getElementById('window')?.complete && document.getElementById('window').naturalWidth "
    "> 0"
)
SHOWN = "document.getElementById('window')?.dataset.place"


def browser_path(playwright) -> str | None:
    """A Chromium of the system, or playwright's own; None if there is neither."""
    own = playwright.chromium.executable_path
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), own if Path(own).exists() else None)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        if (path := browser_path(playwright)) is None:
            pytest.skip("no Chromium here: `playwright install chromium`, or one of the system")
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[tuple[str, Path, pd.DataFrame]]:
    """(address, annotation file, table with the true kind of every window) of a small synthetic
    plate.
    """
    root = tmp_path_factory.mktemp("annotate")
    shutil.copytree(REPO / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    patches = plate(root / "data" / "patches")
    weights = root / "models" / "weights" / "filter"
    weights.mkdir(parents=True)
    state = {k: v.contiguous() for k, v in library_model(build(ARCH).backbone).state_dict().items()}
    save_file(state, weights / "model.safetensors")
    (weights / "source.json").write_text(json.dumps({"arch": ARCH, "weights": "random"}))
    params = default_params(
        dataset={"source": "folder", "partitions": ["drug", "control"]},
        filter={"arch": ARCH, "annotations": "notes.csv"},
    )
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    rows = (
        patches[patches["border"] == 0]
        .groupby("kind")
        .head(24)[["image_id", "y", "x", "size", "kind"]]
    )
    lines = [",".join(map(str, row)) + ",before,2026-01-02" for row in rows.itertuples(index=False)]
    (root / "notes.csv").write_text("\n".join([KEEP, HEADER, *lines]) + "\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "src.cli",
        "annotate",
        "--annotator",
        "tester",
        "--port",
        str(port),
    ]
    env = {
        k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"
    }  # NiceGUI would take itself for tested
    log = (root / "log.txt").open("w")
    server = subprocess.Popen(command, cwd=root, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(address, server, root / "log.txt")
        yield address, root / "notes.csv", patches
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(20)
        log.close()


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(address + "/picture/field/0").read()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(log.read_text())


def opened(browser, address: str):
    """A page with a window on it, and the addresses it asked for."""
    page = browser.new_page(viewport={"width": 1440, "height": 860})
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(address, timeout=120_000)  # a busy machine is not a fault
    page.wait_for_function(READY)
    return page


def press(page, key: str) -> tuple[int, float]:
    """Presses a key and waits for the next window: (the one that was shown, seconds)."""
    before = page.evaluate(SHOWN)
    began = time.perf_counter()
    page.keyboard.press(key)
    page.wait_for_function(f"{SHOWN} !== '{before}' && {READY}", polling=5)
    return int(before), time.perf_counter() - began


def added(file: Path, start: int) -> list[list[str]]:
    return [line.split(",") for line in file.read_text().splitlines()[start:]]


def test_a_sitting(browser, served):
    address, file, _ = served
    page = opened(browser, address)
    before = file.read_text()
    start = len(before.splitlines())

    places, seconds = zip(*(press(page, key) for key in "ceuC"))
    rows = added(file, start)
    assert file.read_text().startswith(before)  # the comment and the rows of others, byte for byte
    assert [row[4] for row in rows] == ["cells", "empty", "unusable", "cells"] and len(
        set(places)
    ) == 4
    assert {row[5] for row in rows} == {"tester"} and len({tuple(row[:4]) for row in rows}) == 4
    assert statistics.median(seconds) < 1.5  # 0.1 s on an idle machine

    skipped, _ = press(page, "s")
    assert added(file, start) == rows
    press(page, "z")  # the skip
    assert int(page.evaluate(SHOWN)) == skipped and added(file, start) == rows
    press(page, "Control+z")
    assert int(page.evaluate(SHOWN)) == places[-1] and added(file, start) == rows[:-1]
    press(page, "Backspace")
    assert int(page.evaluate(SHOWN)) == places[-2] and added(file, start) == rows[:-2]

    page.reload()
    page.wait_for_function(READY)
    assert int(page.evaluate(SHOWN)) == places[-2]  # goes on where it was
    page.click("#unusable")
    page.wait_for_function(f"{SHOWN} !== '{places[-2]}'")
    assert [row[4] for row in added(file, start)] == ["cells", "empty", "unusable"]
    page.wait_for_selector("#quality :text('F1 of not cells')")
    assert all(url.startswith((address, "data:", "blob:")) for url in page.asked)  # works offline
    page.close()


def test_keys_of_a_layout_without_latin_letters(browser, served):
    address, file, _ = served
    page = opened(browser, address)
    before = page.evaluate(SHOWN)
    for key, code in (("é", "Digit2"), ("\u0441", "KeyC")):  # the second is Cyrillic
        event = f"new KeyboardEvent('keydown', {{key: '{key}', code: '{code}'}})"
        page.evaluate(f"document.dispatchEvent({event})")
    page.wait_for_function(f"{SHOWN} !== '{before}' && {READY}")
    assert file.read_text().splitlines()[-1].split(",")[4] == "cells"
    press(page, "z")
    page.close()


def test_another_site_neither_shows_the_page_nor_speaks_for_it(served):
    address = served[0]
    page = urllib.request.urlopen(address)
    assert page.headers["X-Frame-Options"] == "DENY"
    socket_io = f"{address}/_nicegui_ws/socket.io/?EIO=4&transport=polling"
    for headers in ({"Origin": "http://other.site"}, {"Host": "other.site"}):
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(urllib.request.Request(socket_io, headers=headers))
    assert (
        urllib.request.urlopen(
            urllib.request.Request(socket_io, headers={"Origin": address})
        ).status
        == 200
    )


def test_a_second_tab_takes_over_and_the_first_writes_nothing(browser, served):
    address, file, _ = served
    first = opened(browser, address)
    second = opened(browser, address)
    first.wait_for_selector("text=goes on in another tab")
    before = file.read_text()
    first.evaluate("act('cells')")
    time.sleep(0.5)
    assert file.read_text() == before
    press(second, "c")
    assert file.read_text().count("tester") == before.count("tester") + 1
    first.click("text=Use it here")
    second.wait_for_selector("text=goes on in another tab")
    first.wait_for_function(f"{SHOWN} === '{second.evaluate(SHOWN)}'")
    first.close(), second.close()


def test_an_answer_to_a_window_no_longer_in_question_is_refused(browser, served):
    address, file, _ = served
    page = opened(browser, address)
    before = file.read_text()
    stale = int(page.evaluate(SHOWN)) + 1
    page.evaluate(f"emitEvent('act', {{action: 'cells', shown: {stale}}})")
    page.wait_for_selector("text=no longer in question")
    assert file.read_text() == before
    page.close()


def test_the_file_broken_by_hand_is_said_and_left_alone(browser, served):
    address, file, _ = served
    page = opened(browser, address)
    whole = file.read_bytes()
    file.write_bytes(whole + b"f1,0,0,64,perhaps,other,2026-01-03\n")
    broken = file.read_bytes()
    page.keyboard.press("c")
    page.wait_for_selector("text=verdict is 'perhaps'")
    assert file.read_bytes() == broken
    file.write_bytes(whole)
    place, _ = press(page, "c")
    assert file.read_bytes().startswith(whole) and place >= 0
    page.close()


def test_uncertain_windows_hold_no_window_twice_or_with_a_border(browser, served):
    address, file, patches = served
    page = opened(browser, address)
    press(page, "c")  # by itself, this test has no other's answers
    page.close()
    rows = pd.read_csv(file, comment="#")
    keys = ["image_id", "y", "x", "size"]
    assert not rows.duplicated(keys).any()
    mine = rows[rows["annotator"] == "tester"].merge(patches, on=keys)
    assert len(mine) and (mine["border"] <= 0.01).all() and np.isfinite(mine["focus"]).all()
