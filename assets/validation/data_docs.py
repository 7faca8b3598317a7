"""Makes Great Expectations' Data Docs stand alone: no page loads anything from elsewhere.

The pages ask content delivery networks for styles, scripts and pictures. Those are taken out and one stylesheet is put
in (`assets/validation/pages.py` does so as they are written); the index, whose table a script would draw, is written
here.
"""

import html
import re
from pathlib import Path
from string import Template

from assets.display import capitalized, label_name
from assets.settings import Domain
from assets.validation.figures import Figures

__all__ = ["stand_alone", "write_index"]

_STYLE = Path(__file__).parent / "data_docs.css"

_FOREIGN = re.compile(
    r"<script\b.*?</script>|<style\b.*?</style>|<footer\b.*?</footer>|<link\b[^>]*>|<img\b[^>]*?\bsrc=\"https?:[^>]*>",
    re.DOTALL,
)
_EMPTY = "Data asset: None<br>"

_INDEX = Template("""<!DOCTYPE html>
<html lang="en">
<head><meta charset="UTF-8"><meta name="viewport" content="width=device-width, initial-scale=1.0">
<title>$title: the audit as of $as_of</title><style>$style</style></head>
<body class="index"><main>
<p>$title</p>
<h1>The audit of the marts as of $as_of</h1>
<p class="verdict $outcome">$verdict</p>
<h2>Expectations</h2>
<table><thead><tr><th>Suite</th><th>Rows</th><th>Checked</th><th>Not met</th></tr></thead><tbody>$suites</tbody></table>
<h2>What was measured</h2>
<table><tbody>$figures</tbody></table>
<p>Built by Great Expectations. Results hold verdicts, totals and places of rows, never a text.</p>
</main></body></html>
""")


def stand_alone(page: str, suite: str) -> str:
    """A page of Great Expectations that works on its own."""
    page = _FOREIGN.sub("", page).replace(_EMPTY, "")
    page = page.replace("</head>", f"<style>{_STYLE.read_text()}</style></head>")
    return page.replace("<body>", f'<body class="suite {html.escape(suite)}">')


def write_index(
    site: Path,
    as_of: str,
    checked: dict[str, int],
    failed: list[tuple[str, str, str]],
    figures: Figures,
    domain: Domain,
) -> None:
    """Write a site's index.html.

    `checked` counts expectations by suite; `failed` names suite, sentence and severity of those that were not met.
    """
    pages = {path.relative_to(site).parts[1]: path.relative_to(site) for path in site.glob("validations/**/*.html")}
    critical = sum(severity == "critical" for _, _, severity in failed)
    index = _INDEX.substitute(
        title=html.escape(domain.title),
        as_of=as_of,
        style=_STYLE.read_text(),
        outcome="bad" if critical else "good",
        verdict=_verdict(critical, len(failed) - critical),
        suites="".join(_suite_row(suite, count, failed, pages[suite], figures) for suite, count in checked.items()),
        figures="".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in _lines(figures, domain)),
    )
    (site / "index.html").write_text(index)


def _verdict(critical: int, warnings: int) -> str:
    noted = f" {warnings} of severity warning not met." if warnings else ""
    if critical:
        return f"Not published: {critical} critical not met; the previous publication stays.{noted}"
    return f"Good to publish: every critical expectation is met.{noted}"


def _suite_row(suite: str, count: int, failed: list[tuple[str, str, str]], page: Path, figures: Figures) -> str:
    names = [f"{html.escape(sentence)} <em>{severity}</em>" for name, sentence, severity in failed if name == suite]
    cell = f'<td class="bad">{"<br>".join(names)}</td>' if names else '<td class="good">none</td>'
    rows = f"{figures.rows[suite]:,}" if suite in figures.rows else ""
    return f'<tr><td><a href="{page.as_posix()}">{suite}</a></td><td>{rows}</td><td>{count}</td>{cell}</tr>'


def _lines(figures: Figures, domain: Domain) -> list[tuple[str, str]]:
    named = [(label_name(domain, label), share) for label, share in figures.label_mix.items()]
    mix = ", ".join(f"{html.escape(name)} {share:.1%}" for name, share in named)
    record, label = html.escape(domain.record.one), html.escape(domain.label.one)
    records = html.escape(domain.record.many)
    shift = "no previous publication to compare with" if figures.mix_shift is None else f"{figures.mix_shift:.4f}"
    days = figures.staleness_days
    age = f"no {record} is known" if days is None else f"{days} day{'s' * (days != 1)}"
    return [
        (f"{capitalized(records)} landed", f"{figures.landed:,}"),
        ("Valid", f"{figures.valid:,}"),
        ("Quarantined", f"{figures.quarantined:,}"),
        ("Duplicate", f"{figures.duplicate:,}"),
        ("Withdrawn with their objects", f"{figures.withdrawn:,}"),
        (f"{capitalized(records)} known as of the date", f"{figures.known:,}"),
        ("Age of the newest of them", age),
        (f"Mix by {label}", mix or f"no {label} is known"),
        ("Distance of the mix from the previous publication's", shift),
    ]
