"""Commands that are imported when they are called."""

import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from cl_adapters.benchmarks.running.recipe_groups import Group
from cl_adapters.cli.endings import guarded, refused
from cl_adapters.plugins.tables import load

__all__ = ["Command", "LazyGroup", "OneCommand"]


class OneCommand(TyperCommand):
    """A command that refuses empty arguments, and whose help has headings.

    An unset `$PHOTOS` does not mean this folder. An option names its heading as its
    `rich_help_panel`, which typer itself shows in framed help only.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer's
        """Reads the arguments.

        Raises:
            typer.Exit: With the code of bad input, if one is empty.
        """
        for before, each in zip(["", *args], args, strict=False):
            if each == "" or re.fullmatch(r"--[\w-]+=", each):
                name = each or (before if before.startswith("-") else "argument")
                raise refused(f"{name.rstrip('=')} must not be empty, got ''")
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - typer's
        """Writes the arguments, then the options under the headings of their groups."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            said = parameter.get_help_record(ctx)
            if said is not None:
                sections.setdefault(_heading(parameter), []).append(said)
        for heading in sorted(sections, key=_place):
            with formatter.section(heading):
                formatter.write_dl(sections[heading])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, ARG002 - typer's
        """Writes the examples, which no width may break."""
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")


_ARGUMENTS: Final = "Arguments"


def _heading(parameter: Any) -> str:  # noqa: ANN401 - typer's
    if parameter.param_type_name == "argument":
        return _ARGUMENTS
    return str(parameter.rich_help_panel or "Options")  # the latter of a command without groups


def _place(heading: str) -> int:
    # Of those with a place; the others stand last, in the order in which they came.
    places = [_ARGUMENTS, *Group]
    return places.index(heading) if heading in places else len(places)


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        place: `module:name` of its function, or of a `Typer` with commands of its own.
        help: What it does, in a sentence.
        examples: Whole command lines, shown at the end of its help.
    """

    place: str
    help: str
    examples: tuple[str, ...] = ()

    def build(self, name: str) -> Any:  # noqa: ANN401 - typer's own command class is private
        """Imports the command."""
        found: typer.Typer | Callable[..., None] = load(self.place)
        if isinstance(found, typer.Typer):
            return get_command(found)
        alone = typer.Typer(
            add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
        )
        told = "\n".join(self.examples) or None
        alone.command(name, cls=OneCommand, help=self.help, epilog=told)(guarded(found))
        return get_command(alone)


class _Built(MutableMapping[str, Any]):
    """The commands of a table as typer's group wants them, each built when it is looked up."""

    def __init__(self, table: Mapping[str, Command]) -> None:
        self._table, self._built = table, dict[str, Any]()

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401
        if name not in self._built:
            self._built[name] = self._table[name].build(name)
        return self._built[name]

    def __setitem__(self, name: str, command: Any) -> None:  # noqa: ANN401
        self._built[name] = command

    def __delitem__(self, name: str) -> None:
        del self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)


class LazyGroup(TyperGroup):
    """A group whose help needs none of its commands; subclasses say which there are."""

    table: ClassVar[Mapping[str, Command]] = {}

    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401 - typer's
        super().__init__(**{**attributes, "commands": None})
        self.commands = _Built(self.table)

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override] # noqa: ARG002 - its base class is private
        """Returns the names of the commands."""
        return list(self.table)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, ARG002 - typer's
        """Writes the commands' names and sentences."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.help) for name, each in self.table.items()])
