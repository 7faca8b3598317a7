import re
from pathlib import Path

import pytest

from assets.exceptions import SettingsError
from assets.settings import (
    CONFIGS,
    Settings,
    load_domain,
    load_environment,
    load_front_settings,
    load_ledger_settings,
    load_settings,
    profiles,
)


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of configs/ that a test may change."""
    for path in CONFIGS.rglob("*.yaml"):
        copy = tmp_path / path.relative_to(CONFIGS)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    monkeypatch.setattr("assets.settings.loading.CONFIGS", tmp_path)
    return tmp_path


@pytest.mark.parametrize("profile", profiles())
def test_every_profile_is_valid(profile: str) -> None:
    assert isinstance(load_settings(profile), Settings)


def test_a_profile_overrides_single_fields(configs: Path) -> None:
    (configs / "profiles" / "small.yaml").write_text("snapshot: {test_rows: 7}")
    small, full = load_settings("small"), load_settings("full")
    assert small.snapshot.test_rows == 7
    assert small.snapshot.min_train_rows == full.snapshot.min_train_rows


def test_a_profile_overrides_single_fields_of_a_group(configs: Path) -> None:
    (configs / "profiles" / "small.yaml").write_text("training: {optimizer: {epochs: 7}}")
    small, whole = load_settings("small").training, load_settings("full").training
    assert small.optimizer.epochs == 7
    assert small.optimizer.learning_rate == whole.optimizer.learning_rate
    assert small.hardware == whole.hardware
    text = (configs / "training.yaml").read_text()
    (configs / "training.yaml").write_text(text.replace("learning_rate: 0.00025", "learning_rate: fast"))
    with pytest.raises(SettingsError, match=r"^configs/training.yaml: training.optimizer.learning_rate: .*'fast'"):
        load_settings("small")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("profiles/quick.yaml", "training: {epochs: 2}", r"profiles/quick.yaml: training.epochs: unknown setting"),
        (
            "profiles/quick.yaml",
            "training: {optimizer: {epoch: 2}}",
            r"profiles/quick.yaml: training.optimizer.epoch: unknown setting",
        ),
        ("training.yaml", "model: {base_model: 3}", r"training.yaml: training.model.base_model: .* \(found 3\)"),
        ("profiles/quick.yaml", "trainings: {}", r"profiles/quick.yaml: unknown section 'trainings'"),
        ("profiles/quick.yaml", "gate: {min_test_rows: 0}", r"profiles/quick.yaml: gate.min_test_rows: .* \(found 0\)"),
        ("scoring.yaml", "window_days: many", r"scoring.yaml: scoring.window_days: .* \(found 'many'\)"),
        ("profiles/quick.yaml", "ingestion: {published_in_key: '('}", "published_in_key: .*not a regular expression"),
        ("profiles/quick.yaml", "ingestion: {published_in_key: '(?P<year>.)'}", "published_in_key: .*name its groups"),
        ("profiles/quick.yaml", "retention: {days: 0}", r"profiles/quick.yaml: retention.days: .* \(found 0\)"),
        ("scoring.yaml", "- 1", r"scoring.yaml: expected fields, found list"),
        ("scoring.yaml", "a: [", r"scoring.yaml: cannot be read"),
    ],
)
def test_a_mistake_names_its_file_and_field(configs: Path, file: str, text: str, message: str) -> None:
    (configs / file).write_text(text)
    with pytest.raises(SettingsError, match=message) as raised:
        load_settings("quick")
    assert "\n" not in str(raised.value)


def test_texts_stay_in_the_home_unless_the_front_door_s_settings_say_otherwise(configs: Path) -> None:
    assert load_front_settings().texts is False
    (configs / "front.yaml").write_text("{texts: true, text_characters: 100, page_rows: 0}")
    with pytest.raises(SettingsError, match=r"^configs/front.yaml: page_rows: .* \(found 0\)"):
        load_front_settings()


def test_an_unknown_profile_names_those_there_are() -> None:
    with pytest.raises(SettingsError, match="unknown profile 'big'; configs/profiles has full, gpu, gpu-8, quick"):
        load_settings("big")


def test_the_environment_is_embedded_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not load_environment().is_shared
    monkeypatch.setenv("EVERGREEN_ENVIRONMENT", "stack")
    assert load_environment().is_shared


def test_a_variable_replaces_a_value_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_ENVIRONMENT", "stack")
    monkeypatch.setenv("EVERGREEN_OBJECTS", "s3://ours/evergreen")
    assert load_environment().objects == "s3://ours/evergreen"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ENVIRONMENT": "moon"}, "EVERGREEN_ENVIRONMENT: no 'moon' in configs/environments; it has local, stack"),
        ({"OBJECTS": "s3://ours"}, "local.yaml: objects is shared by machines, so database has to be: set it, too"),
        ({"RAY": "http://head:8265"}, "local.yaml: ray is for a home that machines share: set objects, too"),
        ({"ENVIRONMENT": "stack", "OBJECTS": "s3:ours"}, "stack.yaml: objects: write it as s3://bucket/prefix"),
        ({"ENVIRONMENT": "stack", "DATABASE": "postgresql://me:hush@host/ours"}, "database: write it as postgresql://"),
    ],
)
def test_a_mistake_in_the_environment_is_one_line_without_its_value(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"EVERGREEN_{name}", value)
    with pytest.raises(SettingsError) as raised:
        load_environment()
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "hush" not in str(raised.value)


def test_the_ledgers_anchor_is_a_folder_or_nothing(configs: Path) -> None:
    assert load_ledger_settings().anchor is None
    (configs / "ledger.yaml").write_text("anchor: /mnt/elsewhere")
    assert load_ledger_settings().anchor == Path("/mnt/elsewhere")
    (configs / "ledger.yaml").write_text("anker: /mnt/elsewhere")
    with pytest.raises(SettingsError, match=r"^configs/ledger\.yaml: anchor: "):
        load_ledger_settings()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: complaints", "nome: complaints", "name: Field required"),
        ("name: complaints", "name: Complaints", "name: string should match pattern .* \\(found 'Complaints'\\)"),
        ("name: complaints", "name: complaints\nshape: round", "shape: unknown setting \\(found 'round'\\)"),
        (
            "name: complaints",
            "name: complaints\ncadence: hourly",
            "cadence: input should be 'day' or 'hour' .*'hourly",
        ),
        ("{one: queue, many: queues, ", "{one: queue, ", "label.many: Field required"),
        ("  cards: Cards", "  Cards: Cards", "labels.Cards: string should match pattern .* \\(found 'Cards'\\)"),
        ("  cards: Cards", "  no: Cards", "labels.0: write it in quotes: YAML takes yes, no, on and off for False"),
        ("  cards: Cards", "  cards: ' mortgage '", "labels: two have the name 'mortgage'"),
        ("[company, state]", "[company, company]", "'company' is named twice"),
        ("[company, state]", "[company, firm]", "entities: 'firm' is not one of source.fields: date_received, product"),
        ("[company, state]", "[company, product]", "entities: 'product' is an outcome, which is not known when"),
        ("whole: [company]", "whole: [firm]", "text.whole: 'firm' is not in entities or request"),
        ("watched: [company", "watched: [firm", "watched: 'firm' is not in entities or request"),
        ("watched: [company", "watched: [zip_code, company", "watched: 'zip_code' is sensitive, and would be shown"),
        ("channel: []", "canal: []", "slices: 'canal' is not in entities or request"),
        ("channel: [Email", "canal: [Email", "expected: 'canal' is not in entities or request"),
        ("by: xx", "bye: xx", "text.replace.0.by: Field required"),
        ("X{2,}|\\d{1,2}/", "X{2,}|(\\d{1,2}/", "text.replace.0.pattern: not a regular expression"),
        ("fields: [narrative]", "fields: [story]", "text.fields: 'story' is not one of source.fields"),
        ("id: complaint_id", "id: number", "id: 'number' is not one of source.fields"),
        (
            "field: date_received",
            "field: state",
            "received.field: 'state' is neither a day nor an instant, as are date_",
        ),
        (
            "2011-07-21",
            "the beginning",
            "received.not_before: input should be a valid date .* \\(found 'the beginning'\\)",
        ),
        ("fields: [product]", "fields: [channel]", "label.fields: 'channel' is not an outcome; set `outcome: true`"),
        ("known: {field: date_sent_to_company, after_days: 7}", "known: {}", "label.known: name a field or after_days"),
        ("after_days: 7", "after_days: -7", "label.known.after_days: input should be greater .* \\(found -7\\)"),
        (
            "type: number",
            "type: integer",
            "source.fields.complaint_id.type: input should be 'text', 'number', 'day' or",
        ),
        ("{names: [State]}", "{names: [company]}", "source: fields: two have the name 'company' in the source"),
        (
            "{names: [State]}",
            "{names: [State], formats: [x]}",
            "source.fields.state: only a day or an instant has formats",
        ),
        ("    tags: {", "    line: {", "source: fields.line: object_id, line, content_hash are the reader's own"),
        (
            "source:\n",
            "source:\n  delimiter: ' '\n",
            "source.delimiter: input should be ',', ';', '|' or .* \\(found ' '",
        ),
    ],
)
def test_a_mistake_in_the_domain_is_one_line(configs: Path, old: str, new: str, message: str) -> None:
    text = (configs / "domain.yaml").read_text()
    assert old in text
    (configs / "domain.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(SettingsError, match=rf"^configs/domain\.yaml: {message}") as raised:
        load_domain()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("field", "taken", "where"),
    [("state", "known_until", "entities"), ("tags", "status", "request"), ("product", "label", "label.fields")],
)
def test_a_field_may_not_be_called_as_a_column_of_the_marts_making(
    configs: Path, field: str, taken: str, where: str
) -> None:
    text = (configs / "domain.yaml").read_text()
    (configs / "domain.yaml").write_text(re.sub(rf"\b{field}\b", taken, text))
    with pytest.raises(SettingsError, match=rf"domain\.yaml: {where}: '{taken}' is a column .*names: \[{taken}\]"):
        load_domain()


def test_a_domain_of_its_own_folder_is_laid_over_the_projects_settings(
    configs: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path_factory.mktemp("domain") / "configs"
    (own / "profiles").mkdir(parents=True)
    (own / "domain.yaml").write_text((configs / "domain.yaml").read_text().replace("name: complaints", "name: own"))
    (own / "scoring.yaml").write_text("window_days: 3")
    (own / "profiles" / "quick.yaml").write_text("snapshot: {test_rows: 7}")
    before = load_settings("quick")
    monkeypatch.setenv("EVERGREEN_DOMAIN", str(own.parent))
    settings = load_settings("quick")
    assert load_domain().name == "own"
    assert (settings.scoring.window_days, settings.snapshot.test_rows) == (3, 7)
    assert settings.training == before.training
    assert settings.snapshot.min_train_rows == before.snapshot.min_train_rows
    (own / "scoring.yaml").write_text("window_days: many")
    with pytest.raises(SettingsError, match=rf"{own}/scoring.yaml: scoring.window_days: .* \(found 'many'\)"):
        load_settings("quick")


def test_costs_name_labels_of_the_domain(configs: Path) -> None:
    (configs / "profiles" / "quick.yaml").write_text("gate: {costs: {cards: {lottery: 2.0}}}")
    with pytest.raises(SettingsError, match=r"gate\.costs: 'lottery' is not a label; configs/domain\.yaml has bank_"):
        load_settings("quick")


@pytest.mark.parametrize(
    ("decided_by", "message"),
    [
        (
            "[acuracy]",
            r"gate\.decided_by: 'acuracy' is not a metric; choose from accuracy, .*, f1:<label>, average_",
        ),
        ("['f1:']", r"gate\.decided_by: 'f1:' is not a metric; choose from accuracy"),
        ("['cost:cards']", r"gate\.decided_by: 'cost:cards' is not a metric; choose from accuracy"),
        ("[cost, cost]", r"gate\.decided_by: 'cost' is named twice"),
        ("[]", r"gate\.decided_by: .* at least 1 item"),
        ("['f1:lottery']", r"gate\.decided_by: 'lottery' is not a label; configs/domain\.yaml has bank_account, "),
    ],
)
def test_what_decides_is_a_metric_there_is(configs: Path, decided_by: str, message: str) -> None:
    policy = (configs / "gate.yaml").read_text()
    (configs / "gate.yaml").write_text(policy.replace("[accuracy, macro_f1]", decided_by))
    with pytest.raises(SettingsError, match=rf"^configs/gate\.yaml: {message}") as raised:
        load_settings("quick")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("decided_by", [("accuracy",), ("accuracy", "macro_f1"), ("cost", "f1:cards", "log_loss")])
def test_metrics_and_challengers_share_the_significance(decided_by: tuple[str, ...]) -> None:
    gate = load_settings("quick").gate.model_copy(update={"decided_by": decided_by})
    assert len(decided_by) * sum(gate.level(nth) for nth in range(1, 100_000)) == pytest.approx(0.1, rel=1e-4)
