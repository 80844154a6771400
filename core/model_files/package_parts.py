"""Where the parts of a package beside its layers lie: head, embedding, sampling defaults, what tells its tokenizer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import PackageError
from ..files import lfs_pointer_size
from .embedding_file import EmbeddingFile, read_embedding_file
from .layer_files import HEAD_NAMES, NUMBER, Build, some
from .package_config import AGAIN, PackageConfig
from .package_tree import Tree, matches
from .tokenizer_choice import Evidence, script_text, sidecar_shape

EMBEDDING_NAMES = ("*embed*.bin", "*embed*.npy", "*.bfloat16.bin")
# the best first: what needs no rounding, then what is rounded once, raw bytes before NumPy's
EMBEDDING_FORMS = (
    *("*bfloat16*.bin", "*bf16*.bin", "*bfloat16*.npy", "*bf16*.npy", "*float32*.bin", "*fp32*.bin", "*float16*.bin"),
    *("*fp16*.bin", "*.bin", "*float32*.npy", "*fp32*.npy", "*.npy"),
)
OTHER_TABLES = ("*per_layer*", "*position*", "*speech*", "*vision*", "*lm_head*")  # not of tokens
FLAG = re.compile(r"""--(\w+)[ \t=]+(?:"([^"\n]*)"|'([^'\n]*)'|([^\s\\]+))""")
FLAGS = ("axmodel_num", "tokens_embed_num", "tokens_embed_size")  # that a script gives in place of a configuration


def find_head(trees: Sequence[Tree], places: Sequence[Path], config: PackageConfig, build: Build) -> Path:
    """The post model: the one that is named, else the one of the layers' name, else the only one. PackageError."""
    if named := _named(config, "filename_post_axmodel", "head (post model)", build):
        return named
    own = f"{build.prefix}_post.axmodel".replace("[", "?")
    for patterns in ((own,), HEAD_NAMES[:1], HEAD_NAMES[1:]):
        for place in places:
            found = _inside(trees, place, patterns)
            if len(found) > 1:
                raise PackageError(_several(place, found, "head", "filename_post_axmodel"))
            if found:
                return found[0]
    raise PackageError(f"{places[0]} has no *_post.axmodel: the model's head (post model) is missing; {AGAIN}")


def find_embedding(
    trees: Sequence[Tree], places: Sequence[Path], config: PackageConfig, builds: Iterable[Build]
) -> Path:
    """The embedding: the one that is named, else the one nearest to the layers, in the form that is read best."""
    if named := _named(config, "filename_tokens_embed", "embedding", None):
        return named
    taken = {build.directory for build in builds}
    further = [folder for folder in trees[0].directories if folder not in taken and folder not in places]
    for place in [*places, *further]:
        found = [path for path in _inside(trees, place, EMBEDDING_NAMES) if not matches(path.name, *OTHER_TABLES)]
        for form in EMBEDDING_FORMS:
            alike = [path for path in found if matches(path.name, form)]
            alike = [path for path in alike if "embed_tokens" in path.name] or alike
            if len(alike) > 1:
                raise PackageError(_several(place, alike, "embedding", "filename_tokens_embed"))
            if alike:
                return alike[0]
    raise PackageError(
        f"{places[0]} has no *.bfloat16.bin, *.float32.bin or .npy file with the model's embedding: it is missing;"
        f" {AGAIN}"
    )


def _named(config: PackageConfig, key: str, what: str, build: Build | None) -> Path | None:
    name = config.text(key)
    if name is None:
        return None
    path = config.resolve(name)
    if not path.is_file() and build is not None and (build.directory / Path(name).name).is_file():
        return build.directory / Path(name).name
    if not path.is_file():
        state = "is a link to nothing" if path.is_symlink() else "is missing"
        raise PackageError(f"{path} {state}: {config.path} names it as the model's {what}; {AGAIN}")
    return path


def _inside(trees: Iterable[Tree], place: Path, patterns: Sequence[str]) -> list[Path]:
    return list(dict.fromkeys(path for tree in trees for path in tree.inside(place, *patterns)))


def _several(place: Path, found: list[Path], what: str, key: str) -> str:
    names = some([path.name for path in found])
    return f"{place} has several files that could be the {what} ({names}): keep one, or name it in config.json as {key}"


def read_embedding(path: Path | None, config: PackageConfig) -> EmbeddingFile | None:
    """What the embedding file is; None where there is none yet, or a pointer in its place."""
    rows, hidden = config.size("tokens_embed_num"), config.size("tokens_embed_size")
    if path is None or lfs_pointer_size(path) is not None:
        return None
    if path.stat().st_size == 0:
        raise PackageError(f"{path} is empty: {AGAIN}")
    return read_embedding_file(path, rows, hidden)


def with_likely_shape(
    embedding: EmbeddingFile, directories: Iterable[Path], outer: PackageConfig | None
) -> EmbeddingFile:
    """The embedding with the shape that the original model's configuration in one of the directories, or that of
    another build of the package, gives one of just this size, where nothing else tells it."""
    shapes = [sidecar_shape(directory, embedding.num_bytes) for directory in directories]
    rows = outer.size("tokens_embed_num") if outer else None
    hidden = outer.size("tokens_embed_size") if outer else None
    if rows and hidden and 2 * rows * hidden == embedding.num_bytes:
        shapes.append((rows, hidden))
    known = embedding.itemsize != 2 or (embedding.rows and embedding.hidden)
    shape = None if known else next(filter(None, shapes), None)
    return embedding.with_shape(*shape) if shape else embedding


def script_config(scripts: Iterable[Path], build: Build) -> PackageConfig | None:
    """What the vendor's run script gives as flags where a package has no configuration: sizes, for these layers only.
    None: no script does, or they contradict each other."""
    found: list[PackageConfig] = []
    for path in scripts:
        flags = {match[1]: match[2] or match[3] or match[4] for match in FLAG.finditer(script_text(path))}
        layers = Path(flags.get("template_filename_axmodel") or "")
        mine = NUMBER.sub("%d", layers.name) == NUMBER.sub("%d", build.template)
        if mine and layers.parent.name in ("", build.directory.name):
            sizes = {key: int(flags[key]) for key in FLAGS if (flags.get(key) or "").isdigit() and int(flags[key]) > 0}
            found.append(PackageConfig(path, sizes))
    return found[0] if found and all(config.values == found[0].values for config in found) else None


def gather_evidence(
    places: Sequence[Path],
    config: PackageConfig,
    build: Build,
    embedding_path: Path | None,
    embedding: EmbeddingFile | None,
    scripts: Sequence[Path],
) -> Evidence:
    """What tells the model's tokenizer from others."""
    size = embedding.num_bytes if embedding else (lfs_pointer_size(embedding_path) or 0) if embedding_path else 0
    return Evidence(
        config=config,
        names=tuple(dict.fromkeys(place.name for place in places)),
        prefix=build.prefix,
        embedding_bytes=size,
        rows=embedding.rows if embedding else config.size("tokens_embed_num"),
        scripts=tuple(scripts),
    )


def find_scripts(trees: Sequence[Tree], places: Sequence[Path]) -> list[Path]:
    """The vendor's programs beside the package's files."""
    return [path for place in places for path in _inside(trees, place, ("*.sh", "*.py"))]


def find_post_config(trees: Sequence[Tree], places: Sequence[Path], config: PackageConfig) -> Path | None:
    """The file of sampling defaults: the one that the configuration names, or else what there is. None: there is
    none."""
    name = config.text("post_config_path")
    if name and (path := config.resolve(name)).is_file():
        return path
    return next((path for place in places for path in _inside(trees, place, ("post_config.json",))), None)


def check_pointers(home: Path, build: Build, head: Path | None, embedding: Path | None, tokenizer: Path | None) -> None:
    """PackageError names the first file that is a Git LFS pointer, and says how many more are."""
    beside = [tokenizer] if tokenizer and tokenizer.is_file() else sorted(tokenizer.iterdir()) if tokenizer else []
    files = [*build.files, *(path for path in (head, embedding) if path), *(path for path in beside if path.is_file())]
    pointers = [(path, size) for path in files if (size := lfs_pointer_size(path)) is not None]
    if pointers:
        path, size = pointers[0]
        more = f"; so are {len(pointers) - 1} more files" if len(pointers) > 1 else ""
        raise PackageError(
            f"{path} is a Git LFS pointer ({path.stat().st_size} bytes) in place of the file itself ({size} bytes)"
            f"{more}: run `git lfs pull` in {home}"
        )
