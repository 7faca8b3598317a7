"""The model card: the page of a model version, in Markdown."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from assets.display import capitalized, label_name, markdown, markdown_list, markdown_table
from assets.evaluation.pictures import PICTURES
from assets.evaluation.report import Evaluation
from assets.evaluation.tables import labels_table, metrics_table, slices_table
from assets.settings import Domain

__all__ = ["NOTE", "PAGE", "flatten", "model_card", "shortened", "with_verdict"]

PAGE, NOTE = 5000, 8000
"""The most characters of the description of a version in MLflow, and of a run, by the columns of its database."""
_MORE = "\n\nThe rest is on the page of its run, and in the files provenance.json and training.json.\n"

_SLICE_ROWS = 8
_VERDICT, _INTENDED = "## Verdict", "## Intended use"

# MLflow shows a line break where a line of Markdown ends.
_LIMITS = (
    "- {Records} without a text are not answered.\n"
    "- Measured on the newest {records} whose {label} was known, in the period below; a model ages as the world "
    "changes, so watch the drift report and the realised performance.\n"
    "- Slices marked (shown only) decide nothing by accuracy: {labels} are judged by F1, others have too few test rows."
)

_REFIT = (
    "This is a refit: training {evaluated}, repeated with the same settings and its test rows included. The gate's "
    "evidence is the evaluation of that training, on the newest rows. The reference rows below are older, and neither "
    "model has learned from them; the champion's column is that training."
)


def model_card(
    domain: Domain,
    evaluation: Evaluation,
    provenance: Mapping[str, Any],
    training: Mapping[str, Any],
    run_url: str | None,
    mlflow_run: str,
) -> str:
    """The Markdown of a version's page. `provenance` and `training` are the bundle's JSON files, `run_url` leads to the
    Dagster run that registered it.

    Its charts are the artifacts of the MLflow run in the folder `evaluation`.
    """
    period = evaluation.snapshot.period
    sources = {
        name: value for name, value in flatten(provenance).items() if not name.startswith(("settings.", "deepspeed."))
    }
    config = {name: value for name, value in flatten(provenance).items() if name not in sources}
    course = {name: value for name, value in flatten(training).items() if not isinstance(training.get(name), list)}
    data = {
        "snapshot": evaluation.snapshot.id,
        "training rows": f"{evaluation.snapshot.train_rows:,} ({' to '.join(period['train'])})",
        **_judged_on(evaluation),
        "evaluation": evaluation.id,
    }
    parts = [
        f"# {markdown(domain.title)}, as of {evaluation.as_of}",
        f"{_VERDICT}: not judged yet",
        *([f"[Dagster run that registered it]({run_url})"] if run_url else []),
        _INTENDED,
        markdown(domain.purpose),
        "## Limits",
        "\n".join(_limits(domain, evaluation)),
        *([_REFIT.format(evaluated=evaluation.refit_of)] if evaluation.refit_of else []),
        f"## Quality on the {'reference' if evaluation.refit_of else 'frozen test'} rows",
        markdown_table(*metrics_table(evaluation, domain)),
        f"## Rarest {markdown(domain.label.many)}",
        markdown_table(*labels_table(evaluation, domain, _SLICE_ROWS)),
        "## Largest slices",
        markdown_table(*slices_table(evaluation, domain, _SLICE_ROWS)),
        *(
            f"![{title}](/get-artifact?path=evaluation/{file}&run_uuid={mlflow_run})"
            for title, file in PICTURES.items()
        ),
        "## Data",
        _pairs(data),
        "## Provenance",
        _pairs(sources),
        "## Configuration",
        _pairs(config),
        "## Training",
        _pairs(course),
    ]
    return "\n\n".join(parts) + "\n"


def shortened(card: str, most: int) -> str:
    """The card, without as many of its last sections as it takes to have at most so many characters."""
    if len(card) <= most:
        return card
    room = card[: most - len(_MORE)]
    return room[: room.rfind("\n\n## ")] + _MORE


def with_verdict(card: str, decision: str, reasons: Iterable[str]) -> str:
    """The card with what the gate has decided in its first lines, in place of what they said before."""
    head, intended, rest = card.partition(_INTENDED)
    title, *before = head.splitlines() or [""]
    links = [line for line in before if line.startswith("[")]
    parts = [title, f"{_VERDICT}: {markdown(decision)}", markdown_list(reasons), *links, intended]
    return "\n\n".join(filter(None, parts)) + rest


def _judged_on(evaluation: Evaluation) -> dict[str, str]:
    if evaluation.refit_of:
        return {"reference rows": f"{evaluation.challenger.rows:,}", "refit of training": evaluation.refit_of}
    return {"test rows": f"{evaluation.snapshot.test_rows:,} ({' to '.join(evaluation.snapshot.period['test'])})"}


def _limits(domain: Domain, evaluation: Evaluation) -> Iterator[str]:
    record, label = domain.record, domain.label
    words = {"records": record.many, "Records": capitalized(record.many), "label": label.one, "labels": label.many}
    yield _LIMITS.format(**{name: markdown(word) for name, word in words.items()})
    yield from (f"- {markdown(limit)}" for limit in domain.limits)
    if evaluation.rare_labels:
        bound = f"fewer than {evaluation.settings['min_label_rows']} rows of a {markdown(label.one)}"
        rare = evaluation.rare_labels.items()
        named = ", ".join(f"{markdown(label_name(domain, name))} ({rows})" for name, rows in rare)
        yield f"- Learned from {bound}, so not reliable there: {named}."


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings flattened into one with dotted names; lists stay whole."""
    return dict(_leaves(value, prefix))


def _leaves(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _leaves(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


def _pairs(values: Mapping[str, Any]) -> str:
    return markdown_table(["", ""], [(name, _text(value)) for name, value in values.items()])


def _text(value: Any) -> str:
    return f"{len(value)}: {', '.join(map(str, value))}" if isinstance(value, list) else str(value)
