"""A night as a letter, for mail or a chat: one page of HTML, and Markdown. Short when nothing calls for anybody."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from assets.display import capitalized, markdown, markdown_list
from assets.front.history import Day, Event, Now
from assets.front.night import Measured, Night
from assets.front.pages import Links, render
from assets.settings import Domain

__all__ = ["Letter", "Part", "as_html", "as_markdown", "compose"]

_MOST = 5
"""Of a kind, so many are named."""


@dataclass(frozen=True)
class Part:
    """Some sentences under a title."""

    title: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Letter:
    """What there is to say of a night."""

    as_of: str
    subject: str
    calm: bool
    parts: tuple[Part, ...]
    link: str
    """To the night's page."""


def compose(
    domain: Domain,
    links: Links,
    now: Now,
    day: Day,
    night: Night,
    measured: Measured | None,
    stories: Mapping[str, Sequence[str]],
) -> Letter:
    """Of the newest as-of. measured: of the as-of that its quality is of; stories: of the versions that were judged."""
    parts = {
        "For you": tuple(_for_a_person(now, night)),
        "Decided": tuple(_decided(day, stories)),
        "Checks": tuple(_checks(night)),
        "How good it is": tuple(_quality(domain, now, measured)),
        "Landed": tuple(_landed(domain, night)),
    }
    urgent = [*parts["For you"], *parts["Decided"], *parts["Checks"]]
    calm = not urgent and not any(one.error for one in night.landed)
    if calm:
        quiet = "No check warned or failed, nothing was decided, and nothing waits for a person."
        parts = {"": (*parts["How good it is"], *parts["Landed"], quiet)}
    said = "calm" if calm else (urgent or ["what landed could not all be read"])[0].rstrip(".")
    return Letter(
        as_of=night.as_of,
        subject=f"{domain.title}, {night.as_of}: {said}",
        calm=calm,
        parts=tuple(Part(title, sentences) for title, sentences in parts.items() if sentences),
        link=links.night(night.as_of),
    )


def as_html(letter: Letter, domain: Domain, links: Links) -> str:
    """A page of its own, which loads nothing."""
    return render("letter.html", domain, links, letter=letter)


def as_markdown(letter: Letter) -> str:
    """The same; what data says is shown literally."""
    parts = [f"**{markdown(letter.subject)}**"]
    for part in letter.parts:
        parts += [f"**{part.title}**"] if part.title else []
        parts.append("\n".join(map(markdown, part.sentences)) if letter.calm else markdown_list(part.sentences))
    return "\n\n".join([*parts, f"[The night's page]({letter.link})"]) + "\n"


def _for_a_person(now: Now, night: Night) -> Iterator[str]:
    if night.runs and (failure := night.runs[-1].failure):
        yield f"The last run has failed: {failure}."
    for waiting in now.waiting:
        yield f"Version {waiting.version} awaits approval, until {waiting.until}."
    if now.alert:
        yield _told(now.alert)


def _decided(day: Day, stories: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """What happened, but that a retraining was decided against or tried, and what is for a person anyhow."""
    for event in day.events:
        if event.kind == "verdict":
            yield " ".join([f"{event.title}.", *stories.get(event.version or "", ())])
        elif event.kind not in ("retraining", "attempt") or event.mark == "retraining":
            yield _told(event)
    if day.began_to_drift:
        yield "Drift began: the newest window is not like the champion's training."


def _told(event: Event) -> str:
    return " ".join([f"{event.title}.", *(f"{capitalized(reason)}." for reason in event.reasons[:1])])


def _checks(night: Night) -> Iterator[str]:
    for finding in night.findings[:_MOST]:
        yield f"{capitalized(finding.severity)}: {finding.name} of {finding.about}: {finding.words}"
    if len(night.findings) > _MOST:
        yield f"And {len(night.findings) - _MOST} more."


def _quality(domain: Domain, now: Now, measured: Measured | None) -> Iterator[str]:
    if now.champion is None:
        yield "There is no champion."
        return
    yield f"Version {now.champion.version} is the champion, since {now.champion.since}."
    if now.quality and (share := now.quality.realised):
        between = f"{share.low:.1%} to {share.high:.1%}"
        yield (
            f"Right on {share.value:.1%} of {share.rows:,} {domain.record.many} whose {domain.label.one} became known "
            f"lately ({between} with 95% confidence)."
        )
    if now.quality and now.quality.estimated is not None:
        low, high = (measured.between if measured else None) or (None, None)
        between = f" ({low:.1%} to {high:.1%} by two estimators)" if low is not None and high is not None else ""
        yield f"Estimated of the newest window: {now.quality.estimated:.1%}{between}."
    if now.quality and now.quality.drifted:
        yield "There is drift: the newest window is not like its training."


def _landed(domain: Domain, night: Night) -> Iterator[str]:
    if not night.landed:
        yield f"No new {domain.record.many} landed."
        return
    landed, refused = (sum(getattr(one, name) for one in night.landed) for name in ("landed", "quarantined"))
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in [*night.reasons.items()][:_MOST])
    why = f" ({reasons})" if reasons else ""
    yield f"{landed:,} {domain.record.many} landed, of which {refused:,} were quarantined{why}."
    broken = [one for one in night.landed if one.error]
    for one in broken[:_MOST]:
        yield f"{one.key}: {one.error}."
    if len(broken) > _MOST:
        yield f"And {len(broken) - _MOST} more."
