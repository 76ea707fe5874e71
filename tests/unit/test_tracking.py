"""What reaches MLflow of a record."""

from src.common.tracking import flat, numbers


def test_nested_records_become_dotted_keys():
    assert flat({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a.b": 1, "a.c.d": 2, "e": 3}


def test_numbers_and_intervals_are_metrics_and_nothing_else_is():
    record = {"auc": {"value": 0.9, "group_interval": [0.8, 0.95], "patch_interval": None}, "name": "x", "ok": True}
    assert numbers(record) == {"auc.value": 0.9, "auc.group_interval_low": 0.8, "auc.group_interval_high": 0.95}
