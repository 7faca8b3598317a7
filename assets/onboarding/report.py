"""What a check of a source saw, in lines for a person."""

from collections.abc import Iterator

from assets.display import plain
from assets.onboarding.check import Check
from assets.settings import Domain

__all__ = ["report"]


def report(found: Check, domain: Domain) -> Iterator[str]:
    """The lines; what comes from data is in them as text."""
    yield from _counts(found, domain)
    yield from _fields(found)
    yield from _months(found, domain)
    yield from _labels(found, domain)
    yield from _figures(found, domain)
    yield from (f"WARNING: {plain(warning)}" for warning in found.warnings)
    if not found.warnings:
        yield "No warning."


def _counts(found: Check, domain: Domain) -> Iterator[str]:
    many = domain.record.many
    yield f"{found.records:,} records of {found.objects:,} objects, {found.used:,} {many} are used"
    for reason, count in found.rejects.items():
        yield f"  not read: {count:,} {reason}, first in {plain(found.places[reason])}"
    for reason, count in found.quarantined.items():
        yield f"  quarantined: {count:,} {reason}"
    yield f"  repeated as they were: {found.duplicates:,}; later versions: {found.versions:,}"


def _fields(found: Check) -> Iterator[str]:
    yield f"\n{'field':<24}{'type':<9}{'filled':>7}{'distinct':>10}  example"
    for each in found.fields:
        yield f"{each.name:<24}{each.type:<9}{each.filled:>7.0%}{each.distinct:>10,}  {each.example}"


def _months(found: Check, domain: Domain) -> Iterator[str]:
    yield f"\n{'month':<24}{domain.record.many:>12}{'with a ' + domain.label.one:>18}"
    for month, rows, labelled in found.months:
        yield f"{month:<24}{rows:>12,}{labelled:>18,}"


def _labels(found: Check, domain: Domain) -> Iterator[str]:
    yield f"\n{domain.label.one:<40}{domain.record.many:>12}"
    for label, rows in sorted(found.labels.items(), key=lambda pair: -pair[1]):
        yield f"{plain(domain.labels[label], 39):<40}{rows:>12,}"
    for value, rows in found.unmapped.items():
        yield f"  no {domain.label.one} is mapped to {value!r}: {rows:,}"


def _figures(found: Check, domain: Domain) -> Iterator[str]:
    many = domain.record.many
    yield ""
    if found.delay_days:
        median, most = found.delay_days
        yield f"{domain.label.many} are known {median:.1f} days after receipt (median), 90% within {most:.1f}"
    if found.words:
        yield f"texts have {found.words[0]:,} words (median), 95% at most {found.words[1]:,}"
    yield f"without a text: {found.without_text:,} {many}"
    for name, (distinct, share) in found.entities.items():
        yield f"{name}: {distinct:,} values, the most frequent in {share:.0%} of the {many}"
    yield ""
