"""The command xmodal completion."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from xmodal.cli.output import print_line

SHELLS = ("bash", "zsh", "fish")
PROGRAM, VARIABLE = "xmodal", "_XMODAL_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script by which SHELL completes commands, options and files.

    \b
    Example:
      xmodal completion fish > ~/.config/fish/completions/xmodal.fish
      echo 'eval "$(xmodal completion bash)"' >> ~/.bashrc
      echo 'eval "$(xmodal completion zsh)"' >> ~/.zshrc
    """
    kind = get_completion_class(shell)
    assert kind is not None
    print_line(kind(context.find_root().command, {}, PROGRAM, VARIABLE).source())
