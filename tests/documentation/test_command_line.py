"""docs/reference/command-line.md, made from what the programs say of themselves. `UPDATE_GOLDEN=1` writes it anew."""

import os
import re
import subprocess

import pytest

import pages

PAGE = pages.REPOSITORY / "docs/reference/command-line.md"
ABOUT = """\
# Command lines

What each program says with `--help`; made from that (`make reference`), and a test holds it against that. Results are on stdout,
everything else on stderr. `SMARTSCALE_LOG` filters the logs of coordinator and agent (`info` unless it is set).

Exit codes of all three: 0 done, 1 the operation failed, 2 bad usage or bad input.
"""


def helped(program, words: list) -> str:
    # So wide that a program says the same whether clap was built to wrap lines or not, which depends on what it is built with.
    ran = subprocess.run(
        [program, *words, "--help"], capture_output=True, text=True, env={"PATH": "/nowhere", "COLUMNS": "1000"}, timeout=30
    )
    assert ran.returncode == 0, ran.stderr
    return "\n".join(line.rstrip() for line in ran.stdout.strip().splitlines())


def sections(program, words: list) -> str:
    said = helped(program, words)
    title = " ".join([program.name, *words])
    made = f"\n{'##' + '#' * min(len(words), 2)} `{title}`\n\n```text\n{said}\n```\n"
    commands = re.search(r"^Commands:\n(.*?)(?=^\S|\Z)", said, re.M | re.S)
    for command in re.findall(r"^  ([a-z][a-z-]*)", commands[1] if commands else "", re.M):
        if command != "help":
            made += sections(program, [*words, command])
    return made


def test_the_reference_of_command_lines_is_what_the_programs_say(programs):
    page = ABOUT + "".join(sections(programs / name, []) for name in ["smartscale", "smartscale-coordinator", "smartscale-agent"])
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(page)
    assert PAGE.read_text() == page, "run `make reference`"


@pytest.mark.parametrize(
    "command",
    [
        "smartscale plan -f nowhere.yaml --policy nowhere.toml",
        "smartscale-coordinator check-config --config nowhere.toml",
        "smartscale-agent check-config --config nowhere.toml",
        "smartscale-agent check --config nowhere.toml",
        "smartscale-agent unheard",
    ],
)
def test_bad_usage_and_bad_input_are_exit_code_two(command, programs, tmp_path):
    program, *words = command.split()
    ran = subprocess.run([programs / program, *words], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert ran.returncode == 2 and words[-1] in ran.stderr, ran
