"""Build: the Cython extensions of axpress.core and the emulated runtime (a plain shared library) beside them.

Environment:
  AXPRESS_WERROR=1       compiler warnings are errors (CI and `make` set it; a wheel built by a user's newer
                         compiler must not fail)
  AXPRESS_SANITIZE=LIST  build everything with -fsanitize=LIST
  AXPRESS_TOY=0          leave the toy's weights (8 MB) out: `make wheels`, which gives them a wheel of their own
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
os.chdir(ROOT)

LINKED_WITH = {  # module: C sources of ours that it calls
    "runtime": ["csrc/axcl_load.c"],
    "step": ["csrc/mask.c"],
    "program": ["csrc/mask.c"],
    "image_rows": ["csrc/image_rows.c"],
    "sampler": ["csrc/sampler.c", "csrc/sampler_state.c", "csrc/logits.c", "csrc/logits_group.c"],
}
FAST = ["-O3"]  # loops over the vocabulary are written for the vectoriser, which -O2 holds back
OPTIMISE = dict.fromkeys(("sampler", "sampler_state", "logits", "logits_group", "program", "recurrent"), FAST)
ISA_FLAGS = {
    "kernels_avx2": ["-mavx2", "-mfma", "-mf16c"],
    "kernels_avx512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma"],
}
COMMON = ["-std=gnu11", "-O2", "-ffp-contract=off", "-fvisibility=hidden", "-Icsrc", "-pthread"]
WARNINGS = ["-Wall", "-Wextra", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Wshadow", "-Wpointer-arith"]
JOBS = os.cpu_count() or 1
CYTHON_WARNINGS = ["-Wall", "-Wno-unused-function", "-Wno-unreachable-code"]


def switches() -> list[str]:
    """Flags that the environment asks for, for compiler and linker alike."""
    flags = ["-Werror"] if os.environ.get("AXPRESS_WERROR") == "1" else []
    if sanitize := os.environ.get("AXPRESS_SANITIZE"):
        # Without the variable tracking, and with checks as calls: written out in the kernels either costs minutes.
        flags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-g1", "-O1", "-fno-var-tracking-assignments"]
        flags += ["--param", "asan-instrumentation-with-call-threshold=0"]
    return flags


def link_pxd_tree() -> Path:
    """build/pxd/axpress/core -> core: Cython (and mypy) look for axpress.core under a folder of that name."""
    tree = ROOT / "build" / "pxd"
    (tree / "axpress").mkdir(parents=True, exist_ok=True)
    for room in ("core", "server"):
        link = tree / "axpress" / room
        if not link.is_symlink():
            link.symlink_to(ROOT / room, target_is_directory=True)
    return tree


def rooms() -> dict[str, str]:
    """Import name and folder of each package, read from the tree: axpress.core.engine -> core/engine."""
    folders = sorted(path.parent for top in ("core", "server") for path in Path(top).rglob("__init__.py"))
    return {f"axpress.{'.'.join(folder.parts)}": str(folder) for folder in folders}


def extensions() -> list[Extension]:
    modules = [
        Extension(
            f"axpress.{'.'.join(source.with_suffix('').parts)}",
            [str(source)],
            depends=[str(p) for p in (*ROOT.glob("csrc/*.[ch]"), *ROOT.glob("core/**/*.pxd"))],
            extra_compile_args=[*COMMON, *OPTIMISE.get(source.stem, []), *CYTHON_WARNINGS, *switches()],
            extra_link_args=["-pthread", *switches()],
            libraries=["dl", "m"],
        )
        for source in sorted(Path("core").rglob("*.pyx"))
    ]
    return cythonize(
        modules,
        include_path=[str(link_pxd_tree())],
        build_dir="build/cython",
        nthreads=JOBS,
        compiler_directives={"language_level": 3, "embedsignature": True, "binding": True},
    )


class BuildExt(build_ext):
    """Also builds csrc/emu into lib/libaxcl_rt.so, each kernel file with its own instruction set; in place also into
    build/ax8860/libaxcl_rt.so, which lacks what the next generation's runtime lacks: for tests, never in a wheel."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or JOBS

    def run(self) -> None:
        super().run()
        self.build_emulator()

    def build_extensions(self) -> None:
        # Once, though several extensions, which are built in parallel, link the same file.
        self.compile(sorted(Path("csrc").glob("*.c")))
        for extension in self.extensions:
            linked = LINKED_WITH.get(extension.name.rpartition(".")[2], [])
            extension.extra_objects = self.compiler.object_filenames(linked, output_dir=self.build_temp)
            extension.extra_link_args += self.stripped()
        super().build_extensions()

    def stripped(self) -> list[str]:
        """For what is installed: Pythons are built with -g, which made three quarters of a wheel's machine code."""
        return [] if self.inplace or os.environ.get("AXPRESS_SANITIZE") else ["-Wl,-s"]

    def compile(self, sources: Sequence[Path]) -> bool:
        """Compiles what is older than its source or any header, in parallel; whether there was something."""
        headers = [path for path in Path("csrc").rglob("*") if path.suffix in (".h", ".inc", ".map")]
        newest_header = max(path.stat().st_mtime for path in headers)
        x86 = self.plat_name.endswith(("x86_64", "amd64"))  # what it is built for, not where

        def compile_one(source: Path) -> bool:
            (made,) = self.compiler.object_filenames([str(source)], output_dir=self.build_temp)
            newest = max(newest_header, source.stat().st_mtime)
            if not self.force and os.path.exists(made) and os.path.getmtime(made) > newest:
                return False
            own = [*OPTIMISE.get(source.stem, []), *(ISA_FLAGS.get(source.stem, []) if x86 else [])]
            flags = [*COMMON, *WARNINGS, *own, *switches()]
            self.compiler.compile([str(source)], output_dir=self.build_temp, extra_postargs=flags)
            return True

        with ThreadPoolExecutor(JOBS) as pool:
            return any(list(pool.map(compile_one, sources)))

    def build_emulator(self) -> None:
        package = ROOT / "core" if self.inplace else Path(self.build_lib) / "axpress" / "core"
        targets = {"ax650": package / "lib" / "libaxcl_rt.so"}
        if self.inplace:
            targets["ax8860"] = ROOT / "build" / "ax8860" / "libaxcl_rt.so"
        sources = sorted(Path("csrc/emu").rglob("*.c"))
        stale = self.compile(sources) or not all(target.exists() for target in targets.values())
        objects = self.compiler.object_filenames(list(map(str, sources)), output_dir=self.build_temp)
        for generation, target in targets.items() if stale else ():
            target.parent.mkdir(parents=True, exist_ok=True)
            flags = ["-Wl,-soname,libaxcl_rt.so", f"-Wl,--version-script=csrc/emu/{generation}.map", "-pthread"]
            flags += self.stripped()
            flags += switches() if os.environ.get("AXPRESS_SANITIZE") else ["-Wl,-z,defs", *switches()]
            self.compiler.link_shared_object(objects, str(target), libraries=["dl", "m"], extra_postargs=flags)

    def get_outputs(self) -> list[str]:
        return [*super().get_outputs(), str(Path(self.build_lib) / "axpress" / "core" / "lib" / "libaxcl_rt.so")]


class BuildPy(build_py):
    """Leaves sources of the extensions, and local builds out of the wheel."""

    def find_data_files(self, package: str, src_dir: str) -> list[str]:
        return [f for f in super().find_data_files(package, src_dir) if not f.endswith((".pyx", ".pxd", ".c", ".so"))]


TOY = [] if os.environ.get("AXPRESS_TOY") == "0" else ["demo/package/**"]

setup(
    packages=list(rooms()),
    package_dir=rooms(),
    package_data={
        "": ["*.pyi"],
        "axpress.core.tokenizer.families": ["*.jinja"],
        "axpress.core.model_store": ["*.toml"],
        "axpress.core": ["profiles/*.toml", "py.typed", *TOY],
        "axpress.server": ["py.typed"],
        "axpress.server.page": ["*.html", "*.css", "*.js", "*.svg", "*.png", "*.webmanifest", "vendor/*"],
    },
    include_package_data=False,
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildExt, "build_py": BuildPy},
)
