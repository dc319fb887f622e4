"""``kvgauge completion``: shell completion of commands, settings and their values.

It prints a script for a shell, and answers the script's requests. Only the standard library is imported, because TAB
must not wait: flags are read from the source of a command, names from the files of ``conf``, and the choices of a
setting from the annotation of the field that it sets.
"""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.commands import COMMANDS
from harness.config.catalog import GROUPS, ROOT, SEVERAL, choices
from harness.config.outside import GROUPS as OWN_GROUPS
from harness.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

HELP = "Print the script that lets a shell complete kvgauge: source <(kvgauge completion bash)."

_BUDGETS = ("32", "64", "128", "256", "512", "1024", "2048", "12%", "full")
_CLASSES = {
    "": "harness.run.configure.RunSettings",
    "selection": "harness.compression.selection.Selection",
    "sampling": "harness.engine.sampling.Sampling",
    "engine": "harness.engine.settings.EngineSettings",
}
"""The classes whose fields are the settings of a group; for other groups a YAML file names the class."""
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


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``completion SHELL``."""
    parser.add_argument("shell", nargs="?", choices=[*SCRIPTS], help="whose script to print")
    parser.add_argument("--words", metavar="LINE", help="what such a script asks for: the words that can end this line")


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Print a script, or the words that a script asks for.

    Raises:
        ConfigError: neither a shell nor ``--words`` is given.
    """
    if arguments.words is not None:
        print("\n".join(candidates(arguments.words)))
    elif arguments.shell is not None:
        print(SCRIPTS[arguments.shell].strip())
    else:
        raise ConfigError(f"kvgauge completion got no shell: give one of {', '.join(SCRIPTS)}")


def candidates(line: str) -> list[str]:
    """Words that complete the last word of a line, or flags and settings that can begin a new one.

    Args:
        line: the line up to the cursor, beginning with the name of the program.
    """
    words = _split(line)
    before, word = words[1:-1], words[-1]
    if before and before[0] in COMMANDS:
        possible = _command_words(before[0], before[1:], word)
    else:
        possible = _run_words(before, word)
    return sorted(choice for choice in set(possible) if choice.startswith(word) and choice != word)


def _split(line: str) -> list[str]:
    """The words of a line, the one at the cursor last; an open quote or bracket does not end a word."""
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.replace('"', "").replace("'", "").split()
    words += [""] * (not line or line[-1].isspace() or len(words) < 2)
    # The line may begin with NAME=value or with another command.
    starts = [index for index, word in enumerate(words[:-1]) if Path(word).name == "kvgauge"]
    return words[starts[-1] :] if starts else words


def _command_words(command: str, before: Sequence[str], word: str) -> Iterable[str]:
    if word.startswith("-"):
        return [*_flags(command), "--help"]
    if command == "bench" or before[:1] == ["prompt"]:
        return [choice for choice in _run_words([command, *before], word) if choice not in COMMANDS]
    given = [each for flag, each in pairwise(["", *before]) if not each.startswith("-") and not flag.startswith("--")]
    if command == "list" and not given:
        return GROUPS.values()
    if command == "show":
        return (*GROUPS, "prompt") if not given else _names(given[0], before) if len(given) == 1 else ()
    fixed = {"new": ["method", "task"], "data": ["longbench", "longbench_v2", "check"], "completion": list(SCRIPTS)}
    return fixed.get(command, ()) if not given else ()


def _flags(command: str) -> list[str]:
    """The flags that a command declares, read from its source."""
    source = ast.parse((ROOT / f"harness/cli/commands/{COMMANDS[command]}.py").read_text(encoding="utf-8"))
    (function,) = (node for node in source.body if isinstance(node, ast.FunctionDef) and node.name == "arguments")
    called = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    shared = ["--task-path"] * bool(called & {"add_results_path", "add_own_paths"})
    shared += ["--method-path"] * ("add_own_paths" in called)
    texts = [
        node.value for node in ast.walk(function) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return [*shared, *(text for text in texts if re.fullmatch(r"--[a-z][a-z-]*", text))]


def _run_words(before: Sequence[str], word: str) -> Iterable[str]:
    setting, given, value = word.partition("=")
    if not given:
        commands = COMMANDS if not before else ()
        return [
            *commands,
            *(f"{name}=" for name in settings(before, setting)),
            *(("--help", "--cfg", "--multirun") * word.startswith("-")),
        ]
    items = re.match(r".*[\[,]", value)  # the earlier items of a list
    prefix = f"{setting}={items[0] if items else ''}"
    return [prefix + name for name in _values(setting, before)]


def _values(setting: str, before: Sequence[str]) -> Iterable[str]:
    """The values of a setting, if they can be listed."""
    if setting == "budget":
        return _BUDGETS
    if setting == "hydra/launcher":
        return [path.stem for path in (ROOT / "conf/hydra/launcher").glob("*.yaml")]
    if setting in GROUPS:
        return _names(setting, before)
    above, _, field = setting.rpartition(".")
    group, _, name = above.partition(".")
    if above in _CLASSES:
        return _field_choices(_CLASSES[above], field)
    files = (
        [choice for choice in choices(group) if choice.target and name in ("", choice.name)] if group in GROUPS else []
    )
    if group == "method" and field in ("scorer", "prompt"):
        return _names(group, before)
    return [value for choice in files for value in _field_choices(choice.target, field)]


def _field_choices(target: str, field: str) -> list[str]:
    """The choices in the annotation of a class's field, as ``harness.values.choices`` gives them, or true and false."""
    module, _, name = target.rpartition(".")
    classes = [node for node in _source(module) if isinstance(node, ast.ClassDef) and node.name == name]
    annotated = [part for node in classes for part in node.body if isinstance(part, ast.AnnAssign)]
    return [
        value
        for part in annotated
        if ast.unparse(part.target) == field
        for value in _annotated(part.annotation, module)
    ]


def _annotated(annotation: ast.expr, module: str) -> list[str]:
    """The choices in an annotation.

    Args:
        annotation: the annotation's syntax tree.
        module: the module that contains it.
    """
    match annotation:
        case ast.Name("bool"):
            return ["true", "false"]
        case ast.Constant(None):
            return ["null"]
        case ast.Name(alias):
            return _aliased(alias, module)
        case ast.BinOp(left, ast.BitOr(), right):
            return _annotated(left, module) + _annotated(right, module)
        case ast.Subscript(ast.Name("Literal"), inside):
            return [str(node.value) for node in ast.walk(inside) if isinstance(node, ast.Constant)]
        case ast.Subscript(ast.Name("Annotated"), ast.Tuple([inside, *_])):
            return _annotated(inside, module)
    return []


def _aliased(alias: str, module: str) -> list[str]:
    """The choices in an annotation that has a name, which a module defines or imports."""
    for node in _source(module):
        match node:
            case ast.Assign([ast.Name(name)], value) if name == alias:
                return _annotated(value, module)
            case ast.ImportFrom(other, names) if other and alias in [name.name for name in names]:
                return _aliased(alias, other)
    return []


def _source(module: str) -> list[ast.stmt]:
    """The statements of a module of the project; empty for other modules."""
    path = ROOT / module.removeprefix("kvgauge.").replace(".", "/")
    file = next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
    return ast.parse(file.read_text(encoding="utf-8")).body if file else []


def settings(before: Sequence[str], begun: str) -> list[str]:
    """Settings of a run; those of a group, like ``method.snapkv.window``, only once the group has been typed.

    Args:
        before: the words before the one at the cursor.
        begun: the beginning of the setting.
    """
    config = (ROOT / "conf/config.yaml").read_text(encoding="utf-8")
    names = [name for name in re.findall(r"^(\w+):", config, re.MULTILINE) if name not in ("defaults", "hydra")]
    group, below, _ = begun.partition(".")
    if not below:
        return [*names, *GROUPS, *(f"{group}_path" for group in OWN_GROUPS), "hydra/launcher"]
    if group in SEVERAL:
        return [f"{group}.{one.name}.{knob}" for one in choices(group, _folders(before)) for knob in _keys(one.text)]
    if group in GROUPS:
        chosen = next((word.partition("=")[2] for word in reversed(before) if word.startswith(f"{group}=")), "")
        chosen = chosen or {"task": "needle", "model": "tiny"}.get(group, "")
        return [f"{group}.{knob}" for text in _inherited(group, chosen, _folders(before)) for knob in _keys(text)]
    section = re.search(rf"^{re.escape(group)}:\n((?:  .*\n|\n)+)", config, re.MULTILINE)
    return [f"{group}.{knob}" for knob in re.findall(r"^  (\w+):", section[1], re.MULTILINE)] if section else []


def _inherited(group: str, name: str, elsewhere: Sequence[Path]) -> list[str]:
    """The text of a file of a group, and of those that it builds on."""
    text = next((choice.text for choice in choices(group, elsewhere) if choice.name == name), "")
    above = re.search(r"^defaults:\n((?:  - .*\n)+)", text, re.MULTILINE)
    names = re.findall(r"^  - (\w+)$", above[1], re.MULTILINE) if above else []
    return [text, *(each for one in names if one != "_self_" for each in _inherited(group, one, elsewhere))]


def _keys(text: str) -> list[str]:
    return [key for key in re.findall(r"^(\w+):", text, re.MULTILINE) if key not in ("_target_", "defaults")]


def _names(group: str, before: Sequence[str]) -> list[str]:
    return [choice.name for choice in choices(group, _folders(before))]


def _folders(before: Sequence[str]) -> list[Path]:
    """Folders with methods or tasks that earlier words of the line name."""
    given = [word.partition("=")[2] for word in before if word.startswith(("method_path=", "task_path="))]
    given += [word for flag, word in pairwise(before) if flag in ("--method-path", "--task-path")]
    return [Path(name).expanduser() for word in given for name in word.strip("[]").split(",")]
