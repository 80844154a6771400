"""The wheel for aarch64, made on x86-64 by a cross compiler, for any Python of this machine. For tools/wheels.py.

What a wheel takes from its Python is the headers. They are the same on both processors but for pyconfig.h, of which
`foreign_headers` makes the other one's, and has the compiler compare every size in it with its own. Then it is looked
whether all that the extensions ask of Python is there in this machine's Python of that version."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

COMPILER = "aarch64-linux-gnu-gcc"
DIFFERENT = {"HAVE_GCC_ASM_FOR_X64": False, "HAVE_GCC_ASM_FOR_X87": False, "HAVE_USABLE_WCHAR_T": True}
"""What pyconfig.h says otherwise on aarch64: it has no x87, and its wchar_t is unsigned. Found by comparing Debian's of
both processors; they differ in PY_SUPPORT_TIER besides, which no header asks for."""
TYPES = {"VOID_P": "void *", "_BOOL": "_Bool", "LONG_LONG": "long long", "LONG_DOUBLE": "long double"}


def foreign_headers(python: Path, folder: Path) -> None:
    """Puts the headers of `python` into `folder`, as they are on aarch64. An error of the compiler: they are not."""
    ask = "import sysconfig; print(sysconfig.get_path('include'), sysconfig.get_config_h_filename(), sep='\\n')"
    headers, config = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.split()
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(headers, folder)
    text = Path(config).read_text()
    for name, defined in DIFFERENT.items():
        text = re.sub(rf"^(#define|/\* #undef) {name}\b.*\n", "", text, flags=re.MULTILINE)
        text += f"#define {name} 1\n" if defined else ""
    (folder / "pyconfig.h").write_text(text)
    lines = ["#include <Python.h>", "#include <pthread.h>", "#include <stddef.h>", "#include <stdio.h>"]
    for operator, name, size in re.findall(r"^#define (SIZE|ALIGN)OF_(\w+) (\d+)", text, flags=re.MULTILINE):
        kind = TYPES.get(name) or name.lower()
        lines.append(f'_Static_assert({"sizeof" if operator == "SIZE" else "_Alignof"}({kind}) == {size}, "{name}");')
    lines.append("#if defined __x86_64__ || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__ || defined WORDS_BIGENDIAN")
    lines += ["#error not for a little-endian aarch64", "#endif", ""]
    check = [COMPILER, f"-I{folder}", "-Werror", "-fsyntax-only", "-xc", "-"]
    subprocess.run(check, input="\n".join(lines), text=True, check=True)


def cross_wheel(python: Path, source: Path, out: Path) -> Path:
    """Builds the wheel of `source`, with setuptools and Cython of `python`, into `out`. Warnings are errors."""
    ask = "import sysconfig; print(sysconfig.get_python_version())"
    tag = "cp" + subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    tag = tag.replace(".", "")
    headers = out.parent / f"headers-{tag}"
    foreign_headers(python, headers)
    environment = {
        **os.environ, "AXPRESS_WERROR": "1", "AXPRESS_TOY": "0", "CC": COMPILER, "LDSHARED": f"{COMPILER} -shared",
        "CFLAGS": f"-I{headers}", "_PYTHON_HOST_PLATFORM": "linux-aarch64",
        "SETUPTOOLS_EXT_SUFFIX": f".cpython-{tag[2:]}-aarch64-linux-gnu.so",
    }  # fmt: skip
    pattern = f"axpress-*-{tag}-{tag}-linux_aarch64.whl"
    for old in out.glob(pattern):
        old.unlink()
    build = [python, "setup.py", "-q", "bdist_wheel", "--dist-dir", out]
    done = subprocess.run(
        build, cwd=source, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise SystemExit(f"the wheel does not build:\n{done.stdout[-4000:]}")
    (wheel,) = out.glob(pattern)
    look_for_symbols(python, source)
    return wheel


def look_for_symbols(python: Path, source: Path) -> None:
    """Whether Python has all that the extensions just built ask of it."""

    def names(nm: str, *arguments: str | Path) -> set[str]:
        said = subprocess.run([nm, "-D", *arguments], capture_output=True, text=True, check=True).stdout
        return set(re.findall(r" (_?Py\w+)$", said, flags=re.MULTILINE))

    ask = """import sys, sysconfig
get = sysconfig.get_config_var
print(f"{get('LIBDIR')}/{get('INSTSONAME')}" if get("Py_ENABLE_SHARED") else sys._base_executable)"""
    library = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    there = names("nm", "--defined-only", library)
    extensions = list(source.glob("build/lib*/axpress/core/**/*aarch64-linux-gnu.so"))
    asked = names("aarch64-linux-gnu-nm", "--undefined-only", *extensions)
    if not extensions or asked - there:
        raise SystemExit(f"{len(extensions)} extensions ask for what {library} lacks: {sorted(asked - there)}")
    print(f"{len(extensions)} extensions ask for {len(asked)} names of Python, all of them are in {library}")
