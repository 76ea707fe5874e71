"""`register` killed at points of its way through MLflow: the next run ends as if undisturbed, and
the champion is never missing.
"""

import pytest

from tests.pipeline.test_registry_road import SETUP, drive, lay_out

pytestmark = pytest.mark.slow

# (where it dies; the new model's seed, that of the champion for the same network packaged anew; the
# share of patches it is right on)
POINTS = [
    ("mlflow.pyfunc:save_model", 1, 0.62),
    ("src.common.register.aliases:write_decision", 1, 0.62),
    ("mlflow:MlflowClient.set_registered_model_alias", 2, 0.75),
    ("src.common.register.aliases:finish", 3, 0.88),
    ("src.common.workspace.records:write_json", 4, 1.0),
]
COMPARED = [POINTS[i][0] for i in (2, 3, 4)]
STEPS = """
import mlflow.pyfunc, mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store  # once, for all processes that follow
from src.common.workspace import records
from tests.kill import in_child, killed


def apart(call):
    '''Runs a call in a process of its own, so that this one never holds the store open.'''
    def told():
        json.dump(call(), open("told.json", "w"))
    assert in_child(told) == 0
    return json.load(open("told.json"))


def stage():
    record = registry.register_model("p", *load("tile", "register"))
    records.write_json(METRICS / "register" / "p.json", record)
    return record


def runs():
    client = tracking.connect()
    ids = [e.experiment_id for e in client.search_experiments()]
    return [[run.info.status, run.info.end_time] for run in client.search_runs(ids)]


def trained(number, seed, right):
    '''Lays down a model, and tells the runs before it is registered.'''
    present(seed, a, right, [f"img{8 + number}"])
    return runs()


apart(lambda: trained(0, 1, 0.62) and stage())
for number, (place, seed, right) in enumerate(POINTS, start=1):
    before = apart(lambda: trained(number, seed, right))
    seen[:] = [f"sha-img{8 + number}"]  # what `present` noted in a process that is gone
    killed(stage, place)
    left = apart(lambda: {"runs": runs()} | state())
    record = apart(stage)
    found[place] = {"before": before, "left": left, "record": record,
                    "after": apart(lambda: {"runs": runs()} | state())}
json.dump(found, open("found.json", "w"))
"""


@pytest.fixture(scope="module")
def steps(tmp_path_factory) -> dict:
    """What each killed run left, and what the next one made of it."""
    root = tmp_path_factory.mktemp("killed")
    lay_out(root)
    return drive(root, f"{SETUP}\nPOINTS = {POINTS}\n{STEPS}")


@pytest.mark.parametrize("number", range(1, len(POINTS) + 1))
def test_register_killed_at_any_point_is_repeated_as_if_undisturbed(steps, number):
    found = steps[POINTS[number - 1][0]]
    after, record = found["after"], found["record"]
    assert found["left"]["aliases"]["champion"] in (str(number), str(number + 1))
    assert after["aliases"] == {"champion": str(number + 1)}
    assert after["versions"] == after["moves"] == number + 1
    assert after["decisions"][-1].startswith(f"champion: {record['reason']}")
    assert after["decisions"][-2].startswith(f"replaced by version {number + 1}: ")
    assert after["tags"]["decision"] in after["card"] and "moving" not in after["tags"]
    assert found["before"] == found["left"]["runs"] == after["runs"]
    assert all(status == "FINISHED" for status, _ in after["runs"])


def test_its_comparison_is_that_of_an_undisturbed_run(steps):
    compared = [steps[place] for place in COMPARED]
    assert all(step["record"]["comparison"]["balanced_accuracy"] for step in compared)
    (used,) = compared[-1]["after"]["used"].values()
    assert used["decisions"] == len(compared)  # each is counted once
