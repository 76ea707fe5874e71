"""Who becomes champion: the rule, from tags alone."""

import pytest

from src.common.params import Register
from src.common.registry import CHALLENGER, CHAMPION, decide

RULE = Register(min_balanced_accuracy=0.6, margin=0.01)


def tags(accuracy: float = 0.8, **changes: str) -> dict[str, str]:
    """Tags of a version."""
    own = {"package_digest": f"p{accuracy}", "model_digest": f"m{accuracy}", "weights": "imagenet", "test_digest": "t"}
    return own | {"balanced_accuracy": str(accuracy)} | changes


@pytest.fixture(autouse=True)
def plain_repro(monkeypatch):
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)


def test_first_good_model_becomes_champion():
    assert decide(tags(), None, RULE).alias == CHAMPION


def test_a_poor_model_never_does():
    found = decide(tags(0.55), None, RULE)
    assert found.alias == CHALLENGER and "0.550 is below 0.6" in found.reason


def test_the_champion_stays_champion_when_registered_again():
    assert decide(tags(), tags(), RULE).alias == CHAMPION


@pytest.mark.parametrize(("accuracy", "alias"), [(0.79, CHALLENGER), (0.805, CHALLENGER), (0.82, CHAMPION)])
def test_a_better_model_replaces_by_more_than_the_margin(accuracy, alias):
    assert decide(tags(accuracy), tags(0.8), RULE).alias == alias


def test_an_experiment_moves_only_the_challenger(monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "idea")
    assert decide(tags(0.99), tags(0.8), RULE).alias == CHALLENGER
    assert decide(tags(0.99), None, RULE).alias == CHAMPION


def test_random_weights_never_replace_pretrained_ones():
    found = decide(tags(0.99, weights="random"), tags(0.8), RULE)
    assert found.alias == CHALLENGER and "random" in found.reason


def test_models_judged_on_other_patches_are_not_compared():
    found = decide(tags(0.99, test_digest="other"), tags(0.8), RULE)
    assert found.alias == CHALLENGER and "not comparable" in found.reason


def test_the_same_weights_packaged_anew_take_over():
    found = decide(tags(0.8, package_digest="new"), tags(0.8), RULE)
    assert found.alias == CHAMPION and "packaged anew" in found.reason
