"""The examples in the help of each command."""

__all__ = ["epilog"]

EXAMPLES: dict[str, tuple[str, ...]] = {
    "init": ("init letters --from letters.csv",),
    "check": ("--domain letters check --source letters.csv", "check --source s3://bucket/records --json"),
    "run": (
        "run --source data --as-of 2024-07-01",
        "run --source s3://bucket/records --as-of 2024-07-01 --profile full --json",
    ),
    "score": ("score --input new.csv --output answers.parquet",),
    "serve": (
        "serve",
        "serve --new-key router",
        "serve --keys /run/secrets/serving-keys",
        "serve --port 0 --profile full",
    ),
    "status": ("status", "status --json"),
    "ledger": ("ledger | less", "ledger --at 2024-07-01", "ledger --verify"),
    "why": ("why 3", "why 3 --json"),
    "letter": ("letter", "letter --output letters"),
    "export-site": ("export-site site", "export-site site --no-reports"),
    "approve": ('approve 4 --by Ada --reason "looks right"',),
    "reject": ('reject 4 --by Ada --reason "one label looks odd"',),
    "rollback": ('rollback 3 --reason "version 4 errs on long texts"',),
    "withdraw": ('withdraw 2024-07-02.csv --reason "the export was cut"',),
    "forget": ("forget 4711 --dry-run", "forget --from ids.txt"),
    "prune": ("prune --dry-run", "prune --json"),
    "rebuild-registry": ("rebuild-registry",),
    "reproduce": ("reproduce 3",),
    "replay": (
        "replay --source data --from 2024-01-01 --to 2024-06-30 --every 7d",
        "replay --source data --from 2024-01-01 --to 2024-06-30 --policy never --policy monthly --json",
    ),
    "demonstrate": ("demonstrate",),
    "simulate": ("simulate --output data --from 2024-01-01 --to 2024-06-30 --rate 50 --seed 7",),
    "doctor": ("doctor", "doctor --source data --profile full", "doctor --json"),
    "ui": ("ui", "ui --open --port 8080"),
    "metrics": ("metrics", "metrics --port 9465 --token-file /run/secrets/metrics-token"),
}


def epilog(command: str) -> str | None:
    """The end of a command's help; None for one without examples."""
    lines = [f"  evergreen {example}" for example in EXAMPLES.get(command, ())]
    return "\n".join(["Examples:", *lines]) if lines else None
