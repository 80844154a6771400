"""tools/deb.py: the service of the Debian package is the one that `axpress service install` writes, and its scripts
are sound. The package itself is tried by `make deb ARGS=--try`."""

from __future__ import annotations

import importlib
import subprocess
from types import ModuleType

import pytest
from repository import ROOT

from axpress.server.unit_file import Unit


@pytest.fixture
def deb(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("deb")


def test_the_unit_takes_its_options_from_the_file_of_the_package(deb: ModuleType) -> None:
    lines = deb.unit(257).splitlines()
    assert "ExecStart=/usr/bin/axpress serve $AXPRESS_OPTIONS --log-format journal" in lines
    assert "EnvironmentFile=/etc/axpress/config" in lines and "User=axpress" in lines
    assert '\nAXPRESS_OPTIONS=""\n' in (deb.TEMPLATES / "config").read_text()
    installed = Unit(["/usr/bin/axpress", "serve"], False, 257, home_of="axpress").text().splitlines()
    assert [line for line in installed if line not in lines] == [
        installed[0],
        "ExecStart=/usr/bin/axpress serve --log-format journal",
    ]


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm"])
def test_scripts_are_sound(deb: ModuleType, script: str) -> None:
    subprocess.run(["sh", "-n", deb.TEMPLATES / script], check=True)
