"""What can follow on a command line, for the shell's completion. Standard library alone: a TAB must not wait for imports.

Flags are read from the source of a command, values from the files of ``conf``; nothing is imported to find them.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from harness.cli.commands import COMMANDS
from harness.config.catalog import GROUPS, ROOT, choices

_CHOICES: Mapping[str, Sequence[str]] = {
    "budget": ("32", "64", "128", "256", "512", "1024", "2048", "12%", "full"),
    "dry_run": ("true", "false"),
    "selection.granularity": ("query_head", "kv_head"),
    "selection.group": ("mean", "max", "sum"),
    "selection.ties": ("stable", "torch"),
    "selection.dtype": ("float32", "model"),
    "engine.exact": ("true", "false"),
    "engine.reuse_prefix": ("true", "false"),
    "engine.kernels": ("auto", "torch", "triton"),
    "retry_errors": ("true", "false"),
    "hydra/launcher": ("local", "slurm", "ray"),
    "model.dtype": ("float32", "bfloat16", "float16"),
    "tracker.mode": ("online", "offline", "disabled"),
}
SCRIPTS: Mapping[str, str] = {
    "bash": r"""
_kvgauge() {
    local line="${COMP_LINE:0:COMP_POINT}" IFS=$'\n'
    local word="${line##*[[:space:]]}"
    # Bash breaks words at = and :, and replaces what follows the last of them.
    local cut="${word%"${word##*[=:]}"}"
    COMPREPLY=($("${COMP_WORDS[0]}" completion --words "$line" 2>/dev/null))
    [[ ${#COMPREPLY[@]} -eq 1 && "${COMPREPLY[0]}" == *[=.] ]] && compopt -o nospace 2>/dev/null
    COMPREPLY=("${COMPREPLY[@]#"$cut"}")
}
complete -o default -F _kvgauge kvgauge
""",
    "zsh": r"""
_kvgauge() {
    local -a found
    found=("${(@f)$("${words[1]}" completion --words "$LBUFFER" 2>/dev/null)}")
    found=(${found:#})
    if (( ! $#found )); then _files; return; fi
    compadd -S '' -- ${(M)found:#*[=.]}
    compadd -- ${found:#*[=.]}
}
compdef _kvgauge kvgauge
""",
    "fish": r"""
complete -c kvgauge -a '(kvgauge completion --words (commandline -cp | string collect) 2>/dev/null)'
""",
}


def candidates(line: str) -> list[str]:
    """Words that the last word of a line can become, or the flags and settings that can begin one.

    Args:
        line: up to the cursor, the command's own name first.
    """
    words = _split(line)
    before, word = words[1:-1], words[-1]
    found = _of_command(before[0], before[1:], word) if before and before[0] in COMMANDS else _of_run(before, word)
    return sorted(choice for choice in set(found) if choice.startswith(word) and choice != word)


def _split(line: str) -> list[str]:
    """The words of a line, the one at the cursor last; an open quote or bracket is only the beginning of one."""
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.replace('"', "").replace("'", "").split()
    words += [""] * (not line or line[-1].isspace() or len(words) < 2)
    # A shell may give what stands before the command, too: NAME=value, or another command.
    starts = [place for place, word in enumerate(words[:-1]) if Path(word).name == "kvgauge"]
    return words[starts[-1] :] if starts else words


def _of_command(command: str, before: Sequence[str], word: str) -> Iterable[str]:
    if word.startswith("-"):
        return [*_flags(command), "--help"]
    if command == "bench":
        return [found for found in _of_run(["bench", *before], word) if found not in COMMANDS]
    given = [each for flag, each in pairwise(["", *before]) if not each.startswith("-") and not flag.startswith("--")]
    if command == "list" and not given:
        return GROUPS.values()
    if command == "show":
        return GROUPS if not given else _names(given[0], before) if len(given) == 1 else ()
    fixed = {"new": ["method"], "data": ["longbench", "check"], "completion": list(SCRIPTS)}
    return fixed.get(command, ()) if not given else ()


def _flags(command: str) -> list[str]:
    """The flags that a command's module declares."""
    source = ast.parse((ROOT / f"harness/cli/commands/{COMMANDS[command]}.py").read_text(encoding="utf-8"))
    (function,) = (node for node in source.body if isinstance(node, ast.FunctionDef) and node.name == "arguments")
    texts = [node.value for node in ast.walk(function) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [text for text in texts if re.fullmatch(r"--[a-z][a-z-]*", text)]


def _of_run(before: Sequence[str], word: str) -> Iterable[str]:
    setting, given, value = word.partition("=")
    if not given:
        commands = COMMANDS if not before else ()
        return [
            *commands,
            *(f"{name}=" for name in _settings(before, setting)),
            *(("--help", "--cfg", "--multirun") * word.startswith("-")),
        ]
    begun = re.match(r".*[\[,]", value)
    lead = f"{setting}={begun[0] if begun else ''}"
    values = _names(setting, before) if setting in GROUPS else _CHOICES.get(setting, ())
    return [lead + name for name in values]


def _settings(before: Sequence[str], begun: str) -> list[str]:
    """Settings of a run; those below a group, like ``method.snapkv.window``, once its name has been typed."""
    config = (ROOT / "conf/config.yaml").read_text(encoding="utf-8")
    names = [name for name in re.findall(r"^(\w+):", config, re.MULTILINE) if name not in ("defaults", "hydra")]
    group, below, _ = begun.partition(".")
    if not below:
        return [*names, *GROUPS, "method_path", "hydra/launcher"]
    if group == "method":
        return [f"method.{method.name}.{knob}" for method in choices(group, _folders(before)) for knob in _keys(method.text)]
    if group in GROUPS:
        chosen = next((word.partition("=")[2] for word in reversed(before) if word.startswith(f"{group}=")), "")
        chosen = chosen or {"task": "needle", "model": "tiny"}.get(group, "")
        return [f"{group}.{knob}" for found in choices(group) if found.name == chosen for knob in _keys(found.text)]
    section = re.search(rf"^{re.escape(group)}:\n((?:  .*\n|\n)+)", config, re.MULTILINE)
    return [f"{group}.{knob}" for knob in re.findall(r"^  (\w+):", section[1], re.MULTILINE)] if section else []


def _keys(text: str) -> list[str]:
    return [key for key in re.findall(r"^(\w+):", text, re.MULTILINE) if key not in ("_target_", "defaults")]


def _names(group: str, before: Sequence[str]) -> list[str]:
    return [found.name for found in choices(group, _folders(before))]


def _folders(before: Sequence[str]) -> list[Path]:
    """Folders with methods that the line names already."""
    given = [word.partition("=")[2] for word in before if word.startswith("method_path=")]
    given += [word for flag, word in pairwise(before) if flag == "--method-path"]
    return [Path(name).expanduser() for word in given for name in word.strip("[]").split(",")]
