"""Fetches the page's libraries from npm into server/page/vendor: built files as they were published, named by their
hash, with their licences. Run it after a change of PACKAGES; the result is committed, so that nobody needs npm."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

VENDOR = Path(__file__).parent.parent / "server" / "page" / "vendor"
MOST_BYTES = 1_500_000


@dataclass(frozen=True)
class Package:
    """A package of npm. `files`: name for the page -> path in the package. `fonts`: a folder of fonts that its style
    sheet names."""

    name: str
    version: str
    sha512: str
    files: dict[str, str]
    licence: str = "LICENSE"
    fonts: str = ""


PACKAGES = [
    Package(
        "markdown-it", "15.0.3",
        "+Az7Ojz3iRGu8KYMvJ6xVhvrxP3eE+vEtJX75Ow88XBpcQNV/0lGX5ZynIIBftREo4DC2jsveAMDaeltmm8QvQ==",
        {"markdown-it.js": "dist/browser/markdown-it.umd.min.js"},
    ),
    Package(
        "markdown-it-texmath", "1.0.0",
        "4hhkiX8/gus+6e53PLCUmUrsa6ZWGgJW2XCW6O0ASvZUiezIK900ZicinTDtG3kAO2kon7oUA/ReWmpW2FByxg==",
        {"texmath.js": "texmath.js"}, licence="license.txt",
    ),
    Package(
        "markdown-it-task-lists", "2.1.1",
        "TxFAc76Jnhb2OUu+n3yz9RMu4CwGfaT788br6HhEDlvWfdeJcLUsxk1Hgw2yJio0OXsxv7pyIPmvECY7bMbluA==",
        {"task-lists.js": "dist/markdown-it-task-lists.min.js"},
    ),
    Package(
        "dompurify", "3.4.18",
        "ofe3wI/uNm68HInABYFJYqQxRw1EaKAjNdrFVKqjUY+UZurvNd2L/HuQe097s/4RivWiZyP6tT7aoT8atjfhwg==",
        {"purify.js": "dist/purify.min.js"},
    ),
    Package(
        "@highlightjs/cdn-assets", "11.12.0",
        "KvOKXODaiFmId9xaq3xc5xCL66wVLUuOngDbO9B/kewbFTqdGbn2nJxNhN3H5R1cgDTVj6R8vH0zgiNDEGjpDw==",
        {"highlight.js": "highlight.min.js"},
    ),
    Package(
        "katex", "0.19.1",
        "jG8uKntjSEcm2EpQOh0XturpPuuC9r3Sq5HLHdsFdWZT27E672SF19QEi+of0/YeOy15lDgRhKvr5614uRrEfA==",
        {"katex.js": "dist/katex.min.js", "katex.css": "dist/katex.min.css"}, fonts="dist/fonts",
    ),
]  # fmt: skip


def unpacked(package: Package, folder: Path) -> Path:
    """The package's files, checked against the hash above. Raises SystemExit where they are others."""
    command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    archive = folder / subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
    if base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode() != package.sha512:
        sys.exit(f"{package.name} {package.version} is not the package that was looked at: its sha512 differs")
    target = folder / archive.stem
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="data")
    return target / "package"


def keep(name: str, content: bytes) -> str:
    """Writes a file of the page under a name that holds its hash: x.js -> x.0123456789ab.js."""
    stem, suffix = name.rsplit(".", 1)
    hashed = f"{stem}.{hashlib.sha256(content).hexdigest()[:12]}.{suffix}"
    (VENDOR / hashed).write_bytes(content)
    return hashed


def keep_style(css: str, fonts: Path) -> str:
    """Keeps the WOFF2 fonts that a style sheet names, and nothing else: every browser that runs the page reads them."""

    def source(match: re.Match[str]) -> str:
        name = match[1]
        return f'src:url({keep(name, (fonts / name).read_bytes())}) format("woff2")'

    return re.sub(r'src:url\(fonts/([\w-]+\.woff2)\) format\("woff2"\)[^;}]*', source, css)


def main() -> None:
    """Writes the folder anew."""
    VENDOR.mkdir(exist_ok=True)
    for old in VENDOR.iterdir():
        old.unlink()
    names, licences = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for package in PACKAGES:
            root = unpacked(package, Path(folder))
            for name, path in package.files.items():
                content = re.sub(rb"\n?//# sourceMappingURL=.*\s*$", b"\n", (root / path).read_bytes())
                if name.endswith(".css"):
                    content = keep_style(content.decode(), root / package.fonts).encode()
                names[name] = keep(name, content)
            licence = (root / package.licence).read_text().strip()
            licences.append(f"{package.name} {package.version}\n\n{licence}\n")
    (VENDOR / "LICENSES").write_text(("\n" + "=" * 80 + "\n\n").join(licences))
    lines = "".join(f'  "{name}": "{hashed}",\n' for name, hashed in sorted(names.items()))
    (VENDOR / "files.js").write_text(
        f"// Made by tools/vendor_page.py: the libraries by name.\n\nexport const FILES = {{\n{lines}}};\n"
    )
    size = sum(path.stat().st_size for path in VENDOR.iterdir())
    print(f"{len(list(VENDOR.iterdir()))} files, {size:,} bytes")
    if size > MOST_BYTES:
        sys.exit(f"more than {MOST_BYTES:,} bytes: too much for a page")


if __name__ == "__main__":
    main()
