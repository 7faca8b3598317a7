"""Prints the result of a source's check."""

from collections.abc import Iterator

from assets.display import plain
from assets.onboarding.check import Check
from assets.settings import Domain

__all__ = ["report"]


def report(check: Check, domain: Domain) -> Iterator[str]:
    """The lines of the report; values from data are plain text."""
    yield from _counts(check, domain)
    yield from _fields(check)
    yield from _months(check, domain)
    yield from _labels(check, domain)
    yield from _figures(check, domain)
    yield from (f"WARNING: {plain(warning)}" for warning in check.warnings)
    if not check.warnings:
        yield "No warning."


def _counts(check: Check, domain: Domain) -> Iterator[str]:
    many = domain.record.many
    yield f"{check.records:,} records of {check.objects:,} objects, {check.used:,} {many} are used"
    for reason, count in check.rejects.items():
        yield f"  not read: {count:,} {reason}, first in {plain(check.places[reason])}"
    for reason, count in check.quarantined.items():
        yield f"  quarantined: {count:,} {reason}"
    yield f"  exact repeats: {check.duplicates:,}; later versions: {check.versions:,}"


def _fields(check: Check) -> Iterator[str]:
    yield f"\n{'field':<24}{'type':<9}{'filled':>7}{'distinct':>10}  example"
    for each in check.fields:
        yield f"{each.name:<24}{each.type:<9}{each.filled:>7.0%}{each.distinct:>10,}  {each.example}"


def _months(check: Check, domain: Domain) -> Iterator[str]:
    yield f"\n{'month':<24}{domain.record.many:>12}{'with a ' + domain.label.one:>18}"
    for month, rows, labelled in check.months:
        yield f"{month:<24}{rows:>12,}{labelled:>18,}"


def _labels(check: Check, domain: Domain) -> Iterator[str]:
    yield f"\n{domain.label.one:<40}{domain.record.many:>12}"
    for label, rows in sorted(check.labels.items(), key=lambda pair: -pair[1]):
        yield f"{plain(domain.labels[label], 39):<40}{rows:>12,}"
    for value, rows in check.unmapped.items():
        yield f"  maps to no {domain.label.one}: {value!r}: {rows:,}"


def _figures(check: Check, domain: Domain) -> Iterator[str]:
    many = domain.record.many
    yield ""
    if check.delay_days:
        median, most = check.delay_days
        yield f"{domain.label.many} are known {median:.1f} days after receipt (median), 90% within {most:.1f}"
    if check.words:
        yield f"texts have {check.words[0]:,} words (median), 95% at most {check.words[1]:,}"
    yield f"without a text: {check.without_text:,} {many}"
    for name, (distinct, share) in check.entities.items():
        yield f"{name}: {distinct:,} values, the most frequent in {share:.0%} of the {many}"
    yield ""
