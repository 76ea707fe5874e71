"""What the documentation names exists."""

import re

import pytest

from tests.conftest import REPO

ROWS = [line for line in (REPO / "docs" / "faults.md").read_text().splitlines() if "/test_" in line]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_every_test_that_the_table_of_faults_names_exists(row):
    names = re.findall(r"`((?:unit|pipeline|model)/test_\w+\.py)`|`(test_\w+)`", row)
    text = ""
    for file, name in names:
        if file:
            text = (REPO / "tests" / file).read_text()
        assert f"\ndef {name}" in text if name else text, file or name
