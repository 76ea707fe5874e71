"""Who becomes champion: the rule, from tags and paired numbers; how often a split has decided; the
card.
"""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from src.common.metrics.paired import Incomparable
from src.common.register import adapted, by_hand, registry
from src.common.register.aliases import CHALLENGER, CHAMPION
from src.common.register.rule import decide
from src.common.tracking import server
from src.common.workspace.sections import Register

RULE = Register(
    min_balanced_accuracy=0.6,
    margin=0.01,
    confidence=0.95,
    bootstrap=1000,
    min_groups=6,
    warn_after=2,
    seed=1,
)


def version(number: int = 2, **changes: str) -> SimpleNamespace:
    """A registered version with its tags."""
    tags = {
        "model_digest": f"m{number}" * 8, "weights": "imagenet", "test_digest": "t" * 64,
        "gates": "passed", "balanced_accuracy": "0.8", "synthetic": "true",
    }  # fmt: skip
    return SimpleNamespace(name="unstained-p", version=str(number), tags=tags | changes)


def won(low: float = 0.02):
    """Paired numbers with that lower bound of the gain."""
    inner = {"candidate": 0.9, "champion": 0.8, "difference": 0.1}
    numbers = {"patches": 100, "groups": 9, "confidence": 0.95}
    scores = {
        "balanced_accuracy": inner | {"interval": [low, 0.2]},
        "brier": inner | {"interval": [-0.1, 0.1]},
    }
    return lambda: numbers | scores


def never():
    raise AssertionError("nothing is to be compared here")


@pytest.fixture(autouse=True)
def plain_repro(monkeypatch):
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)


def test_first_good_model_becomes_champion():
    assert decide(version(), None, RULE, never).alias == CHAMPION


def test_a_poor_model_never_does():
    found = decide(version(balanced_accuracy="0.55"), None, RULE, never)
    assert found.alias == CHALLENGER and "0.550 is below 0.6" in found.reason


def test_a_failed_gate_never_does():
    found = decide(version(gates="failed: splits"), None, RULE, never)
    assert found.alias == CHALLENGER and "failed: splits" in found.reason


def test_the_champion_stays_champion_when_registered_again():
    assert decide(version(2), version(2), RULE, never).alias == CHAMPION


@pytest.mark.parametrize(
    ("low", "alias"), [(-0.01, CHALLENGER), (0.01, CHALLENGER), (0.02, CHAMPION)]
)
def test_a_better_model_replaces_by_more_than_the_paired_error_and_the_margin(low, alias):
    found = decide(version(), version(1), RULE, won(low))
    assert found.alias == alias and found.by_test
    assert found.numbers["balanced_accuracy"]["interval"][0] == low


def test_an_experiment_moves_only_the_challenger_and_tells_the_numbers(monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "idea")
    found = decide(version(), version(1), RULE, won())
    assert found.alias == CHALLENGER and not found.by_test
    assert "+0.100 (+0.020 to +0.200)" in found.reason and found.numbers
    assert decide(version(), None, RULE, never).alias == CHAMPION


def test_random_weights_never_replace_pretrained_ones_but_do_random_ones():
    found = decide(version(weights="random"), version(1), RULE, won())
    assert found.alias == CHALLENGER and "random" in found.reason
    assert (
        decide(version(weights="random"), version(1, weights="random"), RULE, won()).alias
        == CHAMPION
    )


def test_a_model_of_synthetic_images_never_replaces_one_of_real_images():
    found = decide(version(), version(1, synthetic="false"), RULE, won())
    assert found.alias == CHALLENGER and "synthetic" in found.reason
    assert decide(version(synthetic="false"), version(1), RULE, won()).alias == CHAMPION


def test_where_no_fair_comparison_is_possible_the_champion_stays():
    def refused():
        raise Incomparable("it was trained on 3 of the 4 images of this test split")

    found = decide(version(), version(1), RULE, refused)
    assert (
        found.alias == CHALLENGER
        and "trained on 3 of the 4 images" in found.reason
        and not found.by_test
    )


def test_the_same_weights_packaged_anew_take_over():
    found = decide(version(model_digest="m1" * 8), version(1), RULE, never)
    assert found.alias == CHAMPION and "packaged anew" in found.reason


def test_a_former_champion_comes_back_by_hand_only():
    move = (
        '{"alias": "champion", "from": "", "to": "2", "kind": "rule", "who": "rule", "reason": ""}'
    )
    former = version(2, **{"alias.2026-01-01T00:00:00.000000Z": move})
    found = decide(former, version(1), RULE, won())
    assert found.alias == CHALLENGER and "unstained promote" in found.reason
    alone = decide(former, None, RULE, never)  # somebody took the alias away in MLflow
    assert alone.alias == CHALLENGER and alone.reason.endswith("was taken down in MLflow")
    former.tags["replaced"] = "rolled back to version 1: fails at 10x"
    assert (
        "was champion before and was rolled back to version 1: fails"
        in decide(former, version(1), RULE, won()).reason
    )
    former.tags["model_digest"] = (
        "m1" * 8
    )  # the same weights, packaged anew, which somebody rolled back
    assert decide(former, version(1), RULE, won()).alias == CHALLENGER


@pytest.mark.parametrize(
    "work",
    [
        lambda: registry.register_model("p", None, RULE),
        lambda: adapted.register_adapted(version(), {}, {}, []),
        lambda: by_hand.promote("unstained-p", 1, "x"),
        lambda: by_hand.rollback("unstained-p", "x"),
    ],
)
def test_registrations_at_once_and_moves_by_hand_wait_for_each_other(monkeypatch, tmp_path, work):
    """Two would both find no version of a package, and decide against the same champion."""
    monkeypatch.setattr(server, "MLRUNS", tmp_path / "mlruns")
    monkeypatch.setattr("src.common.tracking.runs.connect", lambda: {}["begun"])
    with ThreadPoolExecutor() as pool:
        with server.alone():
            second = pool.submit(work)
            with pytest.raises(TimeoutError):
                second.result(0.3)
        assert str(second.exception(10)) == "'begun'"


@pytest.fixture
def client():
    """The two calls of MLflow's client that counting needs."""
    tags: dict[str, str] = {}
    return SimpleNamespace(
        tags=tags,
        get_registered_model=lambda name: SimpleNamespace(tags=tags),
        set_registered_model_tag=lambda name, key, value: tags.__setitem__(key, value),
        search_model_versions=lambda condition: [1, 2, 3],
    )


def test_a_split_is_counted_once_a_pair_whichever_is_the_candidate(client):
    def note(one: int, other: int) -> str:
        model = SimpleNamespace(name="unstained-p", tags=version(one).tags)
        return registry.note_use(
            client, model, version(other).tags["model_digest"], RULE.warn_after
        )

    assert "has decided 1 time(s), 3 versions" in note(2, 1)
    assert "has decided 1 time(s)" in note(2, 1)
    assert "has decided 1 time(s)" in note(1, 2)
    assert "WARNING" not in note(1, 2)
    last = note(3, 1)
    assert "has decided 2 time(s)" in last and "WARNING" in last
    for number in range(300):
        note(number + 10, 1)
    ((key, value),) = client.tags.items()
    assert key == "test_split." + "t" * 12 and len(value) < 5000 and '"decisions": 302' in value
