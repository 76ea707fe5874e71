"""Nothing that is imported or computed reports to anybody outside."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Whatever asks for an address or for a connection, in whichever process, is written down
SPY = """
import os, socket
def refuse(what):
    def call(*args, **options):
        if what == "connect" and isinstance(args[1], str):  # a socket in the file system
            return connect(*args)
        with open(os.environ["TOLD"], "a") as told:
            print(what, args[-1 if what == "connect" else 0], file=told)
        raise OSError("no network")
    return call
connect = socket.socket.connect
socket.socket.connect = refuse("connect")
socket.getaddrinfo = refuse("look up")
"""
WORK = """
import time, torch
from src.stages.__main__ import imported
for stage in {stages}:
    imported(stage)
import timm, src.common.check.expectations
from src.common.scoring.networks.inference import compiled_net
from src.common.scoring.networks.net import build
compiled_net(build("timm:test_efficientnet"))
time.sleep(1)
"""


def test_no_import_and_no_network_reports(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SPY)
    stages = sorted(path.stem for path in (ROOT / "src" / "stages").glob("[!_]*.py"))
    told = tmp_path / "told"
    env = os.environ | {
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
        "TOLD": str(told),
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", WORK.format(stages=stages)], env=env, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not told.exists(), told.read_text()
    # that the spy sees
    probe = "import urllib.request; urllib.request.urlopen('http://example.org')"
    subprocess.run([sys.executable, "-c", probe], env=env, capture_output=True, check=False)
    assert "example.org" in told.read_text()
