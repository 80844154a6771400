"""The page's libraries and icons as files: named by their hash, small, with their licences."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

from server_process import RunningServer

from axpress.server.page import page_files

VENDOR = Path(__file__).parents[3] / "server" / "page" / "vendor"


def test_libraries_are_what_their_names_say_and_small_enough() -> None:
    sizes = 0
    for path in VENDOR.iterdir():
        content = path.read_bytes()
        sizes += len(content)
        if path.name not in ("LICENSES", "files.js"):
            assert path.name.split(".")[-2] == hashlib.sha256(content).hexdigest()[:12], path.name
    assert sizes < 1_500_000
    licences = (VENDOR / "LICENSES").read_text()
    for package in ("markdown-it 15", "texmath 1", "task-lists 2", "dompurify 3", "cdn-assets 11", "katex 0."):
        assert package in licences


def test_libraries_are_kept_by_browsers_and_the_pages_own_files_are_asked_for_again(server: RunningServer) -> None:
    names = [name for name in page_files() if name.startswith("vendor/")]
    assert len(names) > 20
    for name in ("main.js", "vendor/files.js", *(name for name in names if name != "vendor/files.js")):
        status, head, _ = server.request("GET", f"/page/{name}")
        assert status == 200
        immutable = "immutable" in head["cache-control"]
        assert immutable == (name not in ("main.js", "vendor/files.js")), name
    assert server.request("GET", "/page/vendor/LICENSES")[0] == 404


def test_the_page_can_be_installed(server: RunningServer) -> None:
    status, head, raw = server.request("GET", "/page/manifest.webmanifest")
    manifest = json.loads(raw)
    assert status == 200 and head["content-type"] == "application/manifest+json"
    assert manifest["display"] == "standalone" and manifest["start_url"] == manifest["scope"] == "/"
    sizes = {}
    for icon in manifest["icons"]:
        status, head, raw = server.request("GET", icon["src"])
        assert status == 200 and head["content-type"] == icon["type"]
        if icon["type"] == "image/png":
            sizes[icon["sizes"]] = struct.unpack(">II", raw[16:24])
    assert sizes == {"192x192": (192, 192), "512x512": (512, 512)}
