"""A night as a letter for mail or chat, as one HTML page and as Markdown; short if nothing needs attention."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from assets.display import capitalized, markdown, markdown_list
from assets.front.history import Day, Event, Now
from assets.front.night import Measured, Night
from assets.front.pages import Links, render
from assets.settings import Domain

__all__ = ["Letter", "Part", "as_html", "as_markdown", "compose"]

_MOST = 5
"""Items of a kind that are listed."""
_CALM = "No check warned or failed, nothing was decided, and nothing waits for a person."


@dataclass(frozen=True)
class Part:
    """Sentences under a title."""

    title: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Letter:
    """A letter about a night."""

    as_of: str
    headline: str
    calm: bool
    parts: tuple[Part, ...]
    link: str
    """The address of the night's page."""


def compose(
    domain: Domain,
    links: Links,
    now: Now,
    day: Day,
    night: Night,
    measured: Measured | None,
    stories: Mapping[str, Sequence[str]],
) -> Letter:
    """The letter about the newest as-of.

    `measured` is of the as-of that `now.quality` is of; `stories` are those of the versions judged, by version.
    """
    parts = {
        "For you": tuple(_for_a_person(now, night)),
        "Decided": tuple(_decided(day, stories)),
        "Checks": tuple(_checks(night)),
        "Quality": tuple(_quality(domain, now, measured)),
        "Landed": tuple(_landed(domain, night)),
    }
    news = [*parts["For you"], *parts["Decided"], *parts["Checks"], *_broken(night)]
    headline = _headline([*parts["For you"], *parts["Decided"]], len(night.findings)) if news else "calm"
    if not news:
        parts = {"": (*parts["Quality"], *parts["Landed"], _CALM)}
    return Letter(
        as_of=night.as_of,
        headline=f"{domain.title}, {night.as_of}: {headline}",
        calm=not news,
        parts=tuple(Part(title, sentences) for title, sentences in parts.items() if sentences),
        link=links.night(night.as_of),
    )


def as_html(letter: Letter, domain: Domain, links: Links) -> str:
    """The letter as a page that loads nothing."""
    return render("letter.html", domain, links, letter=letter)


def as_markdown(letter: Letter) -> str:
    """The letter as Markdown that shows every name and value literally."""
    parts = [f"**{markdown(letter.headline)}**"]
    for part in letter.parts:
        parts += [f"**{part.title}**"] if part.title else []
        parts.append("\n".join(map(markdown, part.sentences)) if letter.calm else markdown_list(part.sentences))
    return "\n\n".join([*parts, f"[The night's page]({letter.link})"]) + "\n"


def _headline(happened: Sequence[str], findings: int) -> str:
    """The first thing that happened, without its details."""
    if happened:
        return happened[0].partition(". ")[0].partition(": ")[0].rstrip(".")
    if findings:
        return f"{findings} check{'' if findings == 1 else 's'} warned or failed"
    return "not everything that landed could be read"


def _for_a_person(now: Now, night: Night) -> Iterator[str]:
    if night.runs and (failure := night.runs[-1].failure):
        yield f"The last run failed: {failure}."
    for waiting in now.waiting:
        yield f"Version {waiting.version} awaits approval, until {waiting.until}."
    if now.alert:
        yield _sentence(now.alert)


def _decided(day: Day, stories: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """What happened, except attempts and decisions that no retraining follows from."""
    for event in day.events:
        if event.kind == "verdict":
            yield " ".join([f"{event.title}.", *stories.get(event.version or "", ())])
        elif event.kind not in ("retraining", "attempt") or event.mark == "retraining":
            yield _sentence(event)
    if day.began_to_drift:
        yield "Drift began: the newest window is unlike the champion's training."


def _sentence(event: Event) -> str:
    return " ".join([f"{event.title}.", *(f"{capitalized(reason)}." for reason in event.reasons[:1])])


def _checks(night: Night) -> Iterator[str]:
    yield from _first(
        f"{capitalized(finding.severity)}: {finding.name} of {finding.about}: {finding.words}"
        for finding in night.findings
    )


def _quality(domain: Domain, now: Now, measured: Measured | None) -> Iterator[str]:
    if now.champion is None:
        yield "There is no champion."
        return
    yield f"Version {now.champion.version} has been the champion since {now.champion.since}."
    if now.quality and (share := now.quality.realised):
        yield (
            f"It was right on {share.value:.1%} of {share.rows:,} {domain.record.many} whose {domain.label.one} became "
            f"known lately ({share.low:.1%} to {share.high:.1%} with 95% confidence)."
        )
    if now.quality and now.quality.estimated is not None:
        between = measured.between if measured else None
        bounds = f" ({between[0]:.1%} to {between[1]:.1%} by two estimators)" if between else ""
        yield f"Its estimated accuracy on the newest window is {now.quality.estimated:.1%}{bounds}."
    if now.quality and now.quality.drifted:
        yield "There is drift: the newest window is unlike its training."


def _landed(domain: Domain, night: Night) -> Iterator[str]:
    if not night.landed:
        yield f"No new {domain.record.many} landed."
        return
    landed, quarantined = (sum(getattr(one, name) for one in night.landed) for name in ("landed", "quarantined"))
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in [*night.reasons.items()][:_MOST])
    why = f" ({reasons})" if reasons else ""
    yield f"{landed:,} {domain.record.many} landed; {quarantined:,} were quarantined{why}."
    yield from _first(_broken(night))


def _broken(night: Night) -> Iterator[str]:
    return (f"{one.key} could not be read: {one.error}." for one in night.landed if one.error)


def _first(sentences: Iterator[str]) -> list[str]:
    """The first few, and how many more there are."""
    every = [*sentences]
    return every if len(every) <= _MOST else [*every[:_MOST], f"And {len(every) - _MOST} more."]
