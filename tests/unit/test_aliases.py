"""Aliases in a real MLflow registry: promotion, rollback, their history and what messages say."""

import os
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient, MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

from src.common.register import aliases
from src.common.register.aliases import CHALLENGER, CHAMPION, RegistryError, by_alias, move, moves
from src.common.register.by_hand import history, promote, rollback
from src.common.workspace.errors import UserError
from tests.conftest import mlflow_at

NAME = "unstained-p"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    """An empty MLflow store; made once, since that takes seconds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    with mlflow_at(uri):
        MlflowClient().create_experiment("unstained")
    return uri


@pytest.fixture
def client(store, monkeypatch):
    """A registry with versions 1 to 3, the first of them champion by the rule."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    with mlflow_at(store):
        client = MlflowClient()
        client.create_registered_model(NAME)
        add_versions(client)
        yield client
        client.delete_registered_model(NAME)


def add_versions(client: MlflowClient) -> None:
    """Versions 1 to 3, the first of them champion by the rule."""
    for number in (1, 2, 3):
        tags = {
            "arch": "resnet18",
            "balanced_accuracy": f"0.8{number}",
            "weights": "imagenet",
            "gates": "passed",
        }
        client.create_model_version(NAME, f"file:///models/{number}", tags=tags, description="card")
    move(version(client, 1), CHAMPION, "first version", "rule")


def version(client: MlflowClient, number: int):
    return client.get_model_version(NAME, str(number))


def champion(client: MlflowClient) -> str:
    return aliases.version_number(by_alias(client, NAME, CHAMPION))


def test_rollback_walks_back_through_the_champions(client):
    promote(NAME, 2, "better")
    promote(NAME, 3, "better still")
    assert "is now version 2, was 3" in rollback(NAME, "3 fails on plate 7")
    assert "is now version 1, was 2" in rollback(NAME, "2 too")
    with pytest.raises(
        RegistryError,
        match=r"version 1, replaced no other; there are: 1 .resnet18.*unstained promote",
    ):
        rollback(NAME, "and 1")
    assert champion(client) == "1"


def test_rollback_after_a_rollback_and_a_promotion(client):
    promote(NAME, 2, "a")
    rollback(NAME, "b")
    promote(NAME, 3, "c")
    promote(NAME, 2, "d")
    rollback(NAME, "e")
    assert champion(client) == "3"
    rollback(NAME, "f")
    assert champion(client) == "1"


def test_rollback_passes_over_a_deleted_version(client):
    promote(NAME, 2, "a")
    promote(NAME, 3, "b")
    client.delete_model_version(NAME, "2")
    rollback(NAME, "c")
    assert champion(client) == "1"


def test_rollback_knows_a_champion_set_in_mlflow_itself(client):
    client.set_registered_model_alias(NAME, CHAMPION, "2")
    promote(NAME, 3, "a")
    rollback(NAME, "b")
    assert champion(client) == "2"
    rollback(NAME, "c")
    assert champion(client) == "1"


def test_a_clock_that_was_set_back_leaves_the_order_of_moves(client, monkeypatch):
    promote(NAME, 2, "better")
    monkeypatch.setattr(aliases, "datetime", Yesterday)
    rollback(NAME, "fails")
    promote(NAME, 3, "best")
    assert [step["to"] for step in moves(aliases.versions_of(client, NAME))] == ["1", "2", "1", "3"]
    rollback(NAME, "fails too")
    assert champion(client) == "1"


class Yesterday(datetime):
    """A clock a day behind."""

    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) - timedelta(days=1)


def test_who_has_no_name_in_the_system_can_promote(client, monkeypatch):
    """As in a container that runs as any user's number."""
    for name in ("MLFLOW_TRACKING_USERNAME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    promote(NAME, 2, "better")
    assert moves(aliases.versions_of(client, NAME))[-1]["who"] == f"user {os.getuid()}"


def test_history_is_a_table_of_all_moves(client):
    move(version(client, 2), CHALLENGER, "not better", "rule")
    promote(NAME, 2, "microscope B agrees")
    rollback(NAME, "fails at 10x")
    table = history(NAME)
    assert table.title == "unstained-p: champion is version 1"
    columns = [list(column.cells) for column in table.columns]
    assert [list(row) for row in zip(*columns[1:])] == [
        ["champion", "-", "1", "rule", "-", "first version"],
        ["challenger", "-", "2", "rule", "-", "not better"],
        ["champion", "1", "2", "by hand", "ada", "microscope B agrees"],
        ["challenger", "2", "-", "by hand", "ada", "is the champion now"],
        ["champion", "2", "1", "rollback", "ada", "fails at 10x"],
    ]
    times = [step["time"] for step in moves(aliases.versions_of(client, NAME))]
    assert times == sorted(times) and len(set(times)) == len(times)


@pytest.mark.parametrize("text", ["by hand", '{"alias": "champion"}', "7"])
def test_a_move_that_somebody_wrote_by_hand_is_named_with_its_tag(client, text):
    client.set_model_version_tag(NAME, "2", "alias.note", text)
    for ask in (lambda: history(NAME), lambda: rollback(NAME, "why")):
        with pytest.raises(UserError, match=r"tag alias.note of .* version 2 .* in MLflow$"):
            ask()


def test_an_alias_in_place_is_no_move(client):
    before = len(moves(aliases.versions_of(client, NAME)))
    move(version(client, 1), CHAMPION, "is the champion", "rule")
    assert "is the champion already" in promote(NAME, 1, "again")
    assert len(moves(aliases.versions_of(client, NAME))) == before


def test_an_experiment_is_named_as_the_mover(client, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "wide-net")
    move(version(client, 3), CHALLENGER, "an experiment", "rule")
    assert list(history(NAME).columns[5].cells)[-1] == "experiment wide-net"


def test_promotion_says_what_it_overrides_and_writes_it_on_the_card(client):
    for key, value in {"weights": "random", "gates": "failed: splits", "synthetic": "true",
                       "decision": "challenger: not better"}.items():  # fmt: skip
        client.set_model_version_tag(NAME, "2", key, value)
    said = promote(NAME, 2, "for a demonstration")
    for part in (
        "gate on its data: failed: splits",
        "random first weights over pretrained",
        "SYNTHETIC",
        "not better",
    ):
        assert part in said
    assert said.count("WARNING, this overrides") == 4
    assert version(client, 2).tags["decision"] == "champion: by hand: for a demonstration"
    assert (
        version(client, 2).description
        == "card\n\n### Decision\nchampion: by hand: for a demonstration\n"
    )


def test_a_synthetic_model_over_one_of_real_images_is_called_that(client):
    client.set_model_version_tag(NAME, "2", "synthetic", "true")
    assert "SYNTHETIC images: not for real plates" in promote(NAME, 2, "no real one yet")
    rollback(NAME, "there is one")
    client.set_model_version_tag(NAME, "1", "synthetic", "false")
    assert "SYNTHETIC images over a model of real images: not for" in promote(NAME, 2, "a trial")


def test_both_cards_say_what_a_rollback_did(client):
    promote(NAME, 2, "agrees with the stain")
    assert version(client, 1).tags["decision"] == "replaced by version 2: agrees with the stain"
    rollback(NAME, "fails at 10x")
    for number, text in (
        (1, "champion again: version 2 was rolled back (fails at 10x)"),
        (2, "rolled back to version 1: fails at 10x"),
    ):
        assert version(client, number).tags["decision"] == text
        assert version(client, number).description == f"card\n\n### Decision\n{text}\n"
    assert "that it was rolled back to version 1: fails at 10x" in promote(NAME, 2, "refocused")


def test_the_rule_tells_the_champion_it_replaces_and_a_rollback_clears_it(client):
    move(version(client, 2), CHAMPION, "better by more than the paired error", "rule")
    replaced = "replaced by version 2: better by more than the paired error"
    assert (
        version(client, 1).tags["decision"] == version(client, 1).tags[aliases.REPLACED] == replaced
    )
    move(version(client, 3), CHALLENGER, "not better", "rule")
    assert aliases.REPLACED not in version(client, 2).tags  # of challengers nothing is said
    rollback(NAME, "fails")
    assert (
        aliases.REPLACED not in version(client, 1).tags
        and aliases.REPLACED in version(client, 2).tags
    )


def test_an_empty_store_advises_what_brings_models_back():
    empty = SimpleNamespace(
        search_model_versions=lambda condition: [], search_registered_models=lambda: []
    )
    with pytest.raises(RegistryError, match=r"none in this store: `unstained sync`.*`make repro`"):
        aliases.versions_of(empty, NAME)


def test_messages_list_what_exists(client):
    with pytest.raises(
        RegistryError, match="no registered model unstained-q; there are: unstained-p"
    ):
        promote("unstained-q", 1, "x")
    for name in ("unstained-q", "it's", 'a "b"', "unstained-%", "models:/unstained-p"):
        with pytest.raises(RegistryError, match=f"no registered model {name}; there are"):
            history(name)
    with pytest.raises(
        RegistryError,
        match=r"no version 9 of unstained-p; there are: 1 .resnet18, balanced accuracy 0.810",
    ):
        promote(NAME, 9, "x")
    with pytest.raises(RegistryError, match="a reason is needed"):
        promote(NAME, 2, "  ")
    assert champion(client) == "1"


def test_long_reasons_fit_mlflow(client):
    promote(NAME, 2, "long " * 3000)
    found = version(client, 2)
    assert all(len(value) <= aliases.TAG_LIMIT for value in found.tags.values())
    assert len(found.description) <= aliases.TAG_LIMIT


def test_a_store_that_fails_does_not_read_as_no_champion(client):
    class Failing:
        def get_model_version_by_alias(self, name, alias):
            raise MlflowException("503 Service Unavailable", TEMPORARILY_UNAVAILABLE)

    assert (
        by_alias(client, "no-such-model", CHAMPION) is None
        and by_alias(client, NAME, CHALLENGER) is None
    )
    with pytest.raises(MlflowException, match="503"):
        by_alias(Failing(), NAME, CHAMPION)
