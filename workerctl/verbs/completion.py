"""`completion`: the script that teaches a shell workerctl's verbs, options and jobs."""

from __future__ import annotations

import os

from workerctl import stdio
from workerctl.options import Args, UsageError, Verb

SCRIPTS = {"bash": "workerctl.bash", "zsh": "_workerctl", "fish": "workerctl.fish"}

VERB = Verb(
    "completion",
    "bash|zsh|fish",
    "Print what makes the Tab key work in your shell: verbs, options, jobs, files.",
    text="""
        `make install` and the packages put it where the shells look. Elsewhere, once, into

        bash: ~/.local/share/bash-completion/completions/workerctl (with bash-completion;
        without, eval it in ~/.bashrc)

        zsh: a file _workerctl in a directory of $fpath, before compinit runs

        fish: ~/.config/fish/completions/workerctl.fish

        Jobs of another machine (-H) are not offered: asking for them takes too long.
    """,
    groups={},
    examples=[
        ("completion bash >> ~/.bash_completion", "for bash-completion, from the next shell on"),
        ("completion fish > ~/.config/fish/completions/workerctl.fish", "the same for fish"),
    ],
)


def main(args: Args) -> int:
    shells = ", ".join(SCRIPTS)
    if len(args.words) != 1:
        raise UsageError(f"completion for which shell? Write: workerctl completion SHELL, one of {shells}")
    if args.words[0] not in SCRIPTS:
        raise UsageError(f"no completion for {args.words[0]!r}; there is one for {shells}")
    from workerctl import completing

    path = os.path.join(os.path.dirname(completing.__file__), "scripts", SCRIPTS[args.words[0]])
    with open(path, "rb") as script:
        stdio.write_all(stdio.STDOUT, script.read())
    return 0
