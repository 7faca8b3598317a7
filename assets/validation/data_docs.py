"""How Great Expectations writes Data Docs here: each page once, by templates of ours, and nothing that no page uses.

Its own templates ask content delivery networks for styles, scripts and pictures, and its index needs them. Ours load
nothing from elsewhere; what a page shows is rendered by Great Expectations.
"""

from pathlib import Path
from typing import Any

from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
from great_expectations.render.renderer.site_builder import SiteBuilder
from great_expectations.render.view import DefaultJinjaPageView

from assets.display import capitalized, label_name
from assets.settings import Domain
from assets.validation.figures import Figures

__all__ = ["PageBuilder", "PageRenderer", "PageView", "write_index"]


class PageBuilder(SiteBuilder):  # type: ignore[misc]
    """Leaves out 4 MB of styles, fonts and scripts, and an index whose table a script would draw."""

    def build(self, resource_identifiers: Any = None, build_index: bool = True) -> tuple[str | None, dict[str, Any]]:  # noqa: ARG002 - the interface
        for section in self.site_section_builders.values():
            section.build(resource_identifiers=resource_identifiers)
        return self.get_resource_url(only_if_exists=False), {}


class PageView(DefaultJinjaPageView):  # type: ignore[misc]
    """Pages by `templates/page.html`."""

    _template = "page.html"

    def __init__(self) -> None:
        super().__init__(custom_views_directory=str(Path(__file__).parent / "templates"))


class PageRenderer(ValidationResultsPageRenderer):  # type: ignore[misc]
    """Does not name a data asset: there is none."""

    @classmethod
    def _render_validation_header(cls, validation_results: Any) -> Any:
        header = super()._render_validation_header(validation_results)
        words = header.subheader.string_template
        words["template"] = words["template"].replace("${data_asset} ${data_asset_name}\n", "")
        return header


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
    index = (
        PageView()
        .env.get_template("index.html")
        .render(
            title=domain.title,
            as_of=as_of,
            critical=critical,
            warnings=len(failed) - critical,
            suites=[
                {
                    "name": suite,
                    "page": pages[suite].as_posix(),
                    "rows": f"{figures.rows[suite]:,}" if suite in figures.rows else "",
                    "checked": count,
                    "failed": [(sentence, severity) for name, sentence, severity in failed if name == suite],
                }
                for suite, count in checked.items()
            ],
            figures=_lines(figures, domain),
        )
    )
    (site / "index.html").write_text(index)


def _lines(figures: Figures, domain: Domain) -> list[tuple[str, str]]:
    record, records, label = domain.record.one, domain.record.many, domain.label.one
    mix = ", ".join(f"{label_name(domain, name)} {share:.1%}" for name, share in figures.label_mix.items())
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
