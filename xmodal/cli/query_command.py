"""Command line of a query: words without quotes, ``-word`` to exclude, hints for other options."""

from __future__ import annotations

from collections.abc import Iterable

import click

from xmodal.retrieval.query_text import split_query_text

EXCLUDE = "--not"
"""Option that ``-word`` is written as."""
HINTS = {
    **dict.fromkeys(
        ("--top-k", "--topk", "--top", "--limit", "--count", "--num", "--size", "--max", "--n"),
        "use -k",
    ),
    "--fuse": "codes and words are both used by default, see --by",
    **dict.fromkeys(("--filter", "--filters"), "use --where"),
    **dict.fromkeys(("--exclude", "--without", "--negative"), "use --not TEXT or -word"),
    **dict.fromkeys(("--offset", "--skip", "--start"), "use --from"),
    **dict.fromkeys(("--query", "--text"), "write the words without an option"),
    **dict.fromkeys(("--picture", "--photo", "--file"), "use --image"),
    **dict.fromkeys(("--radius", "--distance"), "use --max-distance"),
    **dict.fromkeys(("--confidence", "--threshold"), "use --min-confidence"),
}
"""Options of other tools and of earlier versions, and what to use here."""


class QueryCommand(click.Command):
    """A command whose words may have a minus sign: ``red shoes -leather``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; ``-word`` becomes ``--not=word``."""
        options = {
            name: parameter.nargs if not (parameter.is_flag or parameter.count) else 0
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option)
            for name in (*parameter.opts, *parameter.secondary_opts)
        }
        try:
            return super().parse_args(ctx, with_exclusions(args, options))
        except click.NoSuchOption as error:
            hint = HINTS.get(error.option_name)
            if hint is None:
                raise
            message = f"No such option: {error.option_name} ({hint})"
            raise click.NoSuchOption(error.option_name, message, ctx=ctx) from None


def with_exclusions(args: Iterable[str], options: dict[str, int]) -> list[str]:
    """Return the arguments with ``--not=word`` for each excluded word.

    ``options``: number of values by name. An argument that begins with a minus sign is excluded as
    a whole: ``-"dark blue"``. Values of options, and all after ``--``, are unchanged.
    """
    result: list[str] = []
    values, rest = 0, iter(args)
    for arg in rest:
        if values or arg == "":
            result.append(arg)
            values = max(0, values - 1)
        elif arg == "--":
            result += [arg, *rest]
        elif arg in options or arg.startswith("--") or _is_short(arg, options):
            result.append(arg)
            values = options.get(arg, 0)
        elif arg[0] == "-" and arg[1:2].isalnum():
            result.append(f"{EXCLUDE}={arg[1:]}")
        else:
            text, not_text = split_query_text(arg)
            result += [f"{EXCLUDE}={word}" for word in not_text]
            result += [] if text is None else [text]
    return result


def _is_short(arg: str, options: dict[str, int]) -> bool:
    """Return whether an argument is a short option with its value: ``-k5``."""
    return arg[:2] in options and options[arg[:2]] == 1 and arg[2:].isdigit()
