"""`axpress completion`: what a shell completes, tried in the shells that are there."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from axpress.server.cli import main


@pytest.fixture(params=["bash", "zsh", "fish"])
def script(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """A shell and its script."""
    assert main(["completion", request.param]) == 0
    return request.param, capsys.readouterr().out


def test_every_shell_is_told_commands_options_and_models(script: tuple[str, str]) -> None:
    for word in ("serve", "chat", "emu-profile", "debug", "axpress list --names", "axpress list --known"):
        assert word in script[1], (script[0], word)
    if shutil.which(script[0]):
        subprocess.run([script[0], "-n"], input=script[1], text=True, check=True, timeout=30)


@pytest.mark.parametrize(
    ("typed", "proposed"),
    [
        ("se", ["serve", "service"]),
        ("chat --temp", ["--temperature"]),
        ("serve --log-level d", ["debug"]),
        ("run one", ["one-model"]),
        ("rm two", ["two/model"]),
    ],
)
def test_bash_completes(typed: str, proposed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    words = ["axpress", *typed.split()]
    bash = f"""{capsys.readouterr().out}
axpress() {{ [ "$1 $2" = "list --names" ] && printf 'one-model\\ntwo/model\\n'; }}
COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}
$(complete -p axpress | sed 's/.* -F \\([^ ]*\\) .*/\\1/') axpress {words[-1]} {words[-2]}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", bash], capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == proposed, done.stderr
