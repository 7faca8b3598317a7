"""The reference of the command, generated from its help: `python -m pipelines.reference > docs/commands.md`."""

import sys
from collections.abc import Iterator

import typer
from typer.core import TyperCommand, TyperGroup

from assets.display import Markdown, markdown_table
from pipelines.cli import app
from pipelines.examples import EXAMPLES

__all__ = ["reference"]

_HEAD = """# Commands

What `evergreen --help` and `evergreen COMMAND --help` say. [Operating it](operations.md) tells what is behind them:
exit codes, where results and progress go, and the variables of the environment.
"""


def reference() -> str:
    """The page in Markdown: all commands, the options before a command, and each command with its examples."""
    group = typer.main.get_group(app)
    context = typer.Context(group, info_name="evergreen")
    commands = {name: command for name, command in group.commands.items() if isinstance(command, TyperCommand)}
    rows = [(Markdown(f"[{name}](#evergreen-{name})"), _first_line(command)) for name, command in commands.items()]
    lines = [_HEAD, markdown_table(["command", "does"], rows), "", "Before the command:", ""]
    lines.append(_table(group, context))
    for name, command in commands.items():
        lines += ["", f"## evergreen {name}", *_section(name, command)]
    return "\n".join(lines) + "\n"


def _section(name: str, command: TyperCommand) -> Iterator[str]:
    context = typer.Context(command, info_name=f"evergreen {name}")
    yield f"\n{' '.join((command.help or '').split())}"
    yield f"\n{_table(command, context)}"
    yield "\n".join(["", "```sh", *(f"evergreen {example}" for example in EXAMPLES[name]), "```"])


def _table(command: TyperCommand | TyperGroup, context: typer.Context) -> str:
    records = (record for each in command.get_params(context) if (record := each.get_help_record(context)))
    rows = [(Markdown(f"`{name}`"), Markdown(" ".join(text.split()))) for name, text in records if name != "--help"]
    return markdown_table(["argument or option", "means"], rows)


def _first_line(command: TyperCommand) -> Markdown:
    return Markdown((command.help or "").partition("\n\n")[0])


if __name__ == "__main__":
    sys.stdout.write(reference())
