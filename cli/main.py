"""Entry point of the ``causalprune`` command: the commands and the exit codes."""

from __future__ import annotations

import os
import re
import sys
from io import TextIOWrapper
from typing import Annotated, Any

import typer

from causalprune.base.errors import CausalpruneError, ExitCode, InterruptedStage, StorageError, translate
from causalprune.base.foreign_errors import foreign_error

from .commands import add_commands
from .help import Group

NAME = "causalprune"

app = typer.Typer(
    name=NAME,
    cls=Group,
    help="Causal pruning of neural networks (arXiv 2412.03035): record gradient descent, fit which parameters cause "
    "the loss to fall, prune the rest. Stages work in a run directory, ./run unless --run or $CAUSALPRUNE_RUN says so.",
    epilog="Example: causalprune run --iterations 5 --sparsity 0.98",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
add_commands(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"causalprune {version('causalprune')}")
        raise typer.Exit


@app.callback()
def _causalprune(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options before the command."""


def _end(error: BaseException, code: ExitCode | int, *, common: bool = True) -> int:
    # Help and version need no session.
    from .session import end

    return end(error, code, common=common)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; errors become one line on stderr.

    Args:
        arguments: By default those of this process, which then ends with the command.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        # A terminal without γ must not make hours of work fail.
        sys.stdout.reconfigure(errors="replace")
    try:
        # The name is also that of the variable by which a shell asks for completions.
        code = app(arguments, prog_name=NAME, standalone_mode=False, obj=arguments is None)
        return code if isinstance(code, int) else ExitCode.DONE
    except (CausalpruneError, InterruptedStage) as error:
        return _end(error, error.exit_code)
    except KeyboardInterrupt:
        return _end(KeyboardInterrupt("interrupted; run the same command again"), ExitCode.KEYBOARD)
    except SystemExit as error:
        if foreign := foreign_error(error):
            return _end(foreign, foreign.exit_code, common=False)
        if not error.code or f"_{NAME.upper()}_COMPLETE" in os.environ:
            # A shell has asked for completions, or for its script.
            return int(error.code or ExitCode.DONE)
        # Raised by Typer when the reader of a pipe has closed it.
        return int(ExitCode.STORAGE)
    except OSError as error:
        return _end(StorageError(str(error)), ExitCode.STORAGE)
    except Exception as error:
        # Typer's usage errors have no public class, but a message.
        if hasattr(error, "format_message"):
            return _end(_usage_error(error), ExitCode.USAGE)
        known = translate(error)
        if known is not None:
            return _end(known, known.exit_code)
        if foreign := foreign_error(error):
            return _end(foreign, foreign.exit_code, common=False)
        remedy = "this is an internal error: run it with --debug and report it"
        return _end(CausalpruneError(f"{type(error).__name__}: {error}", remedy=remedy), ExitCode.INTERNAL)


def _usage_error(error: Any) -> CausalpruneError:
    """What Typer says of the arguments, with what was meant."""
    # Where a value is missing, the parser doesn't know the command.
    path = error.ctx.command_path if error.ctx is not None else NAME
    remedy = f"see {path} --help"
    if hasattr(error, "possibilities"):
        from .mistakes import meant

        own = [flag for each in error.ctx.command.params for flag in (*each.opts, *each.secondary_opts)]
        nearest = meant(path.partition(" ")[2], error.option_name, [*own, "--help"])
        return CausalpruneError(f"no such option: {error.option_name}", remedy=nearest or remedy)
    text = error.format_message().rstrip(".")
    text = text[:1].lower() + text[1:]
    if near := re.fullmatch(r"(no such command .+)\. Did you mean (.+\?)", text):
        return CausalpruneError(near[1], remedy=f"did you mean {near[2].replace(chr(39), '')}")
    if extra := re.fullmatch(r"got unexpected extra argument\S* \((.+)\)", text):
        command = path.partition(" ")[2] or NAME
        return CausalpruneError(command, expected="no more arguments", found=extra[1], remedy=remedy)
    return CausalpruneError(text, remedy=remedy)
