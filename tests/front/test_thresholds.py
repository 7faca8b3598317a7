"""The nearest value at which something turns: found in either direction, within the setting's limits."""

import pytest

from assets.front.thresholds import nearest
from assets.settings import load_settings

POLICY = load_settings("quick").gate.model_copy(
    update={"min_gain": 0.005, "max_part_loss": 0.05, "harm_confidence": 0.9, "min_test_rows": 200}
)


@pytest.mark.parametrize(
    ("setting", "bound", "upwards", "expected"),
    [
        ("min_gain", 0.0226, True, 0.023),
        ("min_gain", 0.0051, True, 0.00511),
        ("max_part_loss", 0.0552, True, 0.056),
        ("max_part_loss", 0.031, False, 0.03),
        ("min_test_rows", 538, True, 539),
        ("min_test_rows", 55, False, 54),
        ("harm_confidence", 0.968, True, 0.97),
        ("min_gain_over_baseline", 0.13, True, 0.14),
        ("min_gain_over_baseline", -0.13, False, -0.14),
        ("max_milliseconds", 25.1, False, 20.0),
    ],
)
def test_the_nearest_value_turns_and_has_few_digits(setting: str, bound: float, upwards: bool, expected: float) -> None:
    def turns(value: float) -> bool:
        return value > bound if upwards else value < bound

    value = nearest(POLICY, setting, turns)
    assert value == expected
    type(POLICY).model_validate(POLICY.model_dump() | {setting: value})


def test_a_value_that_the_setting_cannot_have_is_not_proposed() -> None:
    value = nearest(POLICY, "harm_confidence", lambda value: value > 0.99999)
    assert value is not None
    assert 0.99999 < value < 1
    assert nearest(POLICY, "harm_confidence", lambda value: value >= 1) is None
    assert nearest(POLICY, "min_gain", lambda value: value < 0) is None
    assert nearest(POLICY, "min_test_rows", lambda value: value < 1) is None
