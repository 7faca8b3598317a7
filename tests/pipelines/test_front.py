"""The front door as a server: its pages and JSON, what it refuses, and the reports beside it."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from starlette.testclient import TestClient

from assets.home import Home
from assets.registry.shared_ledger import ledger_of
from pipelines import front
from pipelines.guard import Guard
from pipelines.nights import checks_of, newest_night, runs_of

HERE = "http://127.0.0.1:3001"
DAY = "2024-07-01"
NUMBERS = {"champion": "t1", "accuracy": 0.9, "mature_rows": 500, "drifted": [False], "estimated_accuracy": 0.91}
NUMBERS |= {"evaluated_accuracy": 0.92, "evaluated_rows": 400}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """One for all: Dagster's tables take long to make."""
    with pytest.MonkeyPatch.context() as patch:
        home = Home(tmp_path_factory.mktemp("front") / "home")
        patch.setenv("EVERGREEN_HOME", str(home.root))
        yield home


@pytest.fixture(scope="module")
def client(home: Home) -> Iterator[TestClient]:
    home.claim()
    about = {"version": "1", "training_id": "t1", "champion": None, "numbers": {}, "reasons": ["good"]}
    body = {"decision": "skip", "reason": "calm", "numbers": NUMBERS, "policy": {"min_mature_rows": 100}}
    ledger_of(home).append("verdict", "t1-1", DAY, about | {"decision": "awaiting-approval"})
    ledger_of(home).append("retraining", DAY, DAY, body)
    with front.application(home) as app:
        guarded = Guard(app, 3001, "token", "evergreen")
        yield TestClient(guarded, HERE, headers={"Cookie": "evergreen=token"}, follow_redirects=False)


def test_pages_load_what_they_need_from_here_alone(client: TestClient) -> None:
    for path in ("/", f"/nights?as_of={DAY}", "/none"):
        page = client.get(path)
        policy = page.headers["content-security-policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "form-action 'self'"} <= set(policy)
        assert "unsafe" not in page.headers["content-security-policy"]
        assert page.headers["cache-control"] == "no-store"
    for name in ("front.css", "front.js", "uplot/uPlot.iife.min.js", "uplot/uPlot.min.css"):
        assert client.get(f"/static/{name}").status_code == 200


def test_all_is_there_as_json(client: TestClient) -> None:
    now = client.get("/api/now").json()
    assert (now["problem"], now["now"]["as_of"], now["measured"]) == (None, DAY, None)
    assert [one["version"] for one in now["now"]["waiting"]] == ["1"]
    (day,) = client.get("/api/timeline").json()["days"]
    assert day["quality"]["realised"]["rows"] == 500
    night = client.get(f"/api/nights/{DAY}").json()
    assert night["decision"]["title"] == "No retraining"


@pytest.mark.parametrize("path", ["/nights", "/nights?as_of=2024-07-02", "/nights?as_of=../../x", "/nights?as_of=%00"])
def test_a_day_that_is_not_known_is_a_page_that_says_so(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "Nothing is known of such a day." in answer.text
    api = client.get("/api/nights/2024-07-02")
    assert (api.status_code, api.json()) == (404, {"error": "Nothing is known of such a day."})


@pytest.mark.parametrize(
    ("path", "given", "status", "words"),
    [
        ("versions/1/approve", {"reason": "good"}, 400, "Say who you are, and why."),
        ("versions/1/reject", {"by": "Ada", "reason": " "}, 400, "Say who you are, and why."),
        ("rollback", {"version": "1"}, 400, "Say why."),
        ("versions/7/approve", {"by": "Ada", "reason": "good"}, 404, "No version of this number was judged."),
        ("rollback", {"version": "<b>", "reason": "good"}, 404, "No version of this number was judged."),
        ("rollback", [["version", "1"]], 400, "Send a JSON object."),
        ("rollback", "x", 400, "Send a JSON object."),
        ("rollback", {"version": "1", "reason": "good"}, 409, "text-classifier has no version '1'"),
    ],
)
def test_what_cannot_be_decided_is_said(
    client: TestClient, home: Home, path: str, given: object, status: int, words: str
) -> None:
    answer = client.post(f"/api/{path}", json=given)
    assert (answer.status_code, answer.json()["error"].startswith(words)) == (status, True), answer.text
    if isinstance(given, dict):
        form = {
            "action": path.split("/")[-1],
            **({} if path == "rollback" else {"version": path.split("/")[1]}),
            **given,
        }
        page = client.post("/decide", data=form)
        assert page.status_code == status
        assert "Back to the front page" in page.text
    assert len(ledger_of(home).entries()) == 2


def test_only_json_decides_by_the_api_and_only_a_form_of_this_page_by_itself(client: TestClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = client.post("/api/rollback", content='{"version": "1"}', headers={"Content-Type": kind})
        assert answer.status_code == 415
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "same-site"}):
        assert client.post("/decide", data={"action": "rollback"}, headers=headers).status_code == 403
    for path in ("/api/rollback", "/api/versions/1/approve", "/decide"):
        assert client.get(path).status_code in (404, 405)


@pytest.fixture(scope="module")
def reports(client: TestClient, home: Home) -> TestClient:
    for path in (f"evidently/{DAY}.html", "data-docs/index.html"):
        (home.reports / path).parent.mkdir(parents=True)
        (home.reports / path).write_text("<title>a report</title>")
    return client


def test_a_report_is_served_to_stand_alone(reports: TestClient) -> None:
    page = reports.get(f"/evidently/{DAY}.html")
    assert page.text == "<title>a report</title>"
    assert page.headers["x-content-type-options"] == "nosniff"
    for rule in ("default-src 'none'", "form-action 'none'", "frame-ancestors 'none'", "sandbox allow-scripts"):
        assert rule in page.headers["content-security-policy"]
    assert "allow-same-origin" not in page.headers["content-security-policy"]
    assert "script-src" not in reports.get("/data-docs/index.html").headers["content-security-policy"]


def test_only_reports_are_served(reports: TestClient, home: Home, tmp_path: Path) -> None:
    (tmp_path / "secret.html").write_text("secret")
    (home.reports / "link.html").symlink_to(tmp_path / "secret.html")
    (home.reports / "folder").symlink_to(tmp_path)
    secret = (
        *("link.html", "folder/secret.html", "../../secret.html", "..%2f..%2fsecret.html"),
        f"/{tmp_path}/secret.html",
    )
    for path in (
        *secret,
        "evidently",
        "evidently/",
        "none.html",
        "%00.html",
        f"{'x' * 300}.html",
        "static/../front.html",
    ):
        assert reports.get(f"{HERE}/{path}").status_code == 404, path


PARTITIONS = dg.DailyPartitionsDefinition("2024-06-01")


@dg.asset(partitions_def=PARTITIONS, check_specs=[dg.AssetCheckSpec(name, asset="rows") for name in ("calm", "told")])
def rows(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    failing = context.run.tags.get("failing") == "yes"
    warning = dg.AssetCheckResult(
        check_name="calm", passed=not failing, severity=dg.AssetCheckSeverity.WARN, metadata={"share": 0.123456789}
    )
    told = dg.AssetCheckResult(check_name="told", passed=False, description="2 rows are twice")
    return dg.MaterializeResult(check_results=[warning, told])


@dg.asset(partitions_def=PARTITIONS, deps=[rows])
def broken(context: dg.AssetExecutionContext) -> None:
    if context.run.tags.get("failing") == "yes":
        raise ValueError("the disk is gone")


def test_a_night_s_runs_and_checks_are_what_the_last_ones_say() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        for failing in ("yes", "no"):
            made = dg.materialize(
                [rows, broken], instance=instance, partition_key=DAY, tags={"failing": failing}, raise_on_error=False
            )
            assert made.success is (failing == "no")
        first, second = runs = runs_of(instance, DAY)
        assert (first.status, second.status, second.failure) == ("failure", "success", None)
        assert first.failure == "stopped at broken: ValueError: the disk is gone"
        assert second.seconds is not None
        early = {found.name: (found.severity, found.words, found.about) for found in checks_of(instance, (first,))}
        assert early == {
            "calm": ("warning", "share 0.1235", "rows"),
            "told": ("error", "2 rows are twice", "rows"),
        }
        assert [found.name for found in checks_of(instance, runs)] == ["told"]
        assert runs_of(instance, "2024-06-30") == ()
        assert newest_night(instance) == DAY
        dg.materialize([rows], instance=instance, partition_key="2024-06-30")
        assert newest_night(instance) == DAY
