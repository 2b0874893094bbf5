"""`pmavae completion`: what a shell needs to complete commands, options and files."""

import click
from click.shell_completion import ShellComplete, get_completion_class

SHELLS = ("bash", "zsh", "fish")
PROGRAM, VARIABLE = "pmavae", "_PMAVAE_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a SHELL: bash (4.4 or newer), zsh or fish.

    \b
    bash  echo 'eval "$(pmavae completion bash)"' >> ~/.bashrc
    zsh   echo 'eval "$(pmavae completion zsh)"' >> ~/.zshrc
    fish  pmavae completion fish > ~/.config/fish/completions/pmavae.fish

    The script asks pmavae itself, so that tasks of plugins are completed as soon as they are installed.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    # The class of bash would look for a bash on this machine first; the script may be for another.
    click.echo(ShellComplete.source(kind(ctx.find_root().command, {}, PROGRAM, VARIABLE)))
