"""Freshness policies: how old each asset may be by the schedule and the retraining policy."""

from collections.abc import Iterable
from datetime import timedelta

import dagster as dg

from assets.as_of import PERIODS
from assets.settings import load_domain
from pipelines.jobs import observe

__all__ = ["promise"]

_PERIOD = PERIODS[load_domain().cadence]
# The UI warns after one missed run and fails after two.
_LATE, _OVERDUE = 1.5 * _PERIOD, 2.5 * _PERIOD


def promise(assets: Iterable[dg.AssetsDefinition], max_age_days: int | None) -> list[dg.AssetsDefinition]:
    """The assets with their freshness policies: nightly ones by the schedule, a retraining's by the champion's age.

    `max_age_days`: the champion's age that calls for a retraining; None: a retraining's assets get no policy.
    """
    every, nightly = list(assets), observe.selection.resolve(list(assets))

    def promised(spec: dg.AssetSpec) -> dg.AssetSpec:
        age = 0 if spec.key in nightly else max_age_days
        if age is None:
            return spec
        bounds = {"warn_window": timedelta(age) + _LATE, "fail_window": timedelta(age) + _OVERDUE}
        return spec.replace_attributes(freshness_policy=dg.FreshnessPolicy.time_window(**bounds))

    return list(dg.map_asset_specs(promised, every))
