"""Live evidence: records that challenger and champion have both answered while serving, and whose label is known.

The table `served` of the lake has what was asked and answered (`assets.ingestion.served`). A label comes from feedback
or, without any, from the marts.
"""

from dataclasses import dataclass

from assets.duck import connect
from assets.ingestion.served import served_events
from assets.lake import Lake
from assets.warehouse.marts import mart

__all__ = ["LiveAnswers", "chance_of_no_loss", "live_answers"]

_ANSWERS = """
    create temp table answers as
    select record_id, training_id, arg_min(predicted, "at") as predicted
    from read_parquet($events) where kind in ('answer', 'shadow') and predicted is not null
    and training_id in ($challenger, $champion) group by all
"""
_LABELS = """
    create temp table labels as
    select record_id, arg_max(label, "at") as label
    from read_parquet($events) where kind = 'feedback' group by record_id
"""
_OTHERS = """
    insert into labels select record_id, arg_max(label, known_at) from read_parquet($labels)
    where record_id in (select record_id from answers) and record_id not in (select record_id from labels)
    group by record_id
"""
_COUNTED = """
    select count(*), count(*) filter (ours.predicted = label and theirs.predicted <> label),
           count(*) filter (theirs.predicted = label and ours.predicted <> label)
    from answers ours join answers theirs using (record_id) join labels using (record_id)
    where ours.training_id = $challenger and theirs.training_id = $champion
"""


@dataclass(frozen=True)
class LiveAnswers:
    """Records that both have answered and whose label is known."""

    rows: int
    only_challenger: int
    """Those that only the challenger got right."""
    only_champion: int

    @property
    def chance(self) -> float:
        return chance_of_no_loss(self.only_challenger, self.only_champion)


def chance_of_no_loss(only_challenger: int, only_champion: int) -> float:
    """An exact bound on the chance of so many losses by a challenger that is no worse, however often one looks.

    Only records that one of the two got right count (McNemar, 1947). If the challenger is no worse, the champion wins
    each of them with a chance p of at most 1/2. The likelihood ratio against p = 1/2, averaged evenly over all p above
    it, is then a supermartingale that begins at 1, so it ever exceeds 1 / a with a chance of at most a (Ville, 1939;
    the mixture is that of Robbins, Statistical methods related to the law of the iterated logarithm, 1970). In whole
    numbers it is the sum of C(n + 1, k) for k up to the champion's wins w, over (n + 1) C(n, w).
    """
    rows = only_challenger + only_champion
    term = total = (rows + 1) / (rows + 1 - only_champion)
    for k in range(only_champion, 0, -1):
        term *= k / (rows + 2 - k)
        total += term
    return min(1.0, (rows + 1) / total)


def live_answers(lake: Lake, challenger: str, champion: str) -> LiveAnswers | None:
    """The live evidence on two trainings; None when there is none."""
    if not (events := served_events(lake)):
        return None
    sides = {"challenger": challenger, "champion": champion}
    with connect() as connection:
        connection.execute(_ANSWERS, {"events": events, **sides})
        connection.execute(_LABELS, {"events": events})
        if lake.version("marts"):
            connection.execute(_OTHERS, {"labels": mart(lake.current("marts"), "labels")})
        counted = connection.execute(_COUNTED, sides).fetchone()
    assert counted is not None
    return LiveAnswers(*counted) if counted[0] else None
