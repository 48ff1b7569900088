"""Commands that are imported when they are used, so that the others start quickly.

Rules that live here: a command's module is named like the command, and has it under that name; its top imports no more
than click and the settings.
"""

import importlib

import click

AUTHORS = ("new", "plugins", "check", "schema", "call")
NAMES = (*AUTHORS, "health")
FOR_AUTHORS = (*AUTHORS, "dev")


class LazyGroup(click.Group):
    """A group with the commands of this room beside its own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Those of the group itself, then those of this room."""
        return [*self.commands, *NAMES]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Those for authors in a section of their own."""
        others = sorted({*self.commands, *NAMES} - {*FOR_AUTHORS})
        for title, names in (("Commands", others), ("Commands for plugin authors", FOR_AUTHORS)):
            commands = [(name, self.get_command(ctx, name)) for name in names]
            with formatter.section(title):
                formatter.write_dl(
                    [(name, command.get_short_help_str(200)) for name, command in commands if command is not None]
                )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by its name; None where there is none."""
        if cmd_name not in NAMES:
            return super().get_command(ctx, cmd_name)
        module = importlib.import_module(f"apisix.runner.commands.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command
