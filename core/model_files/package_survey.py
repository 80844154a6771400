"""Looks a model directory over, without a card: where everything is, and what keeps the package from being opened.

A survey goes on after a problem as long as what it knows still means something, so that `axpress check` can say what
was found; opening a package raises the first problem."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import PackageError
from .embedding_file import EmbeddingFile
from .embedding_models import POOLING, SIGN, is_cross_encoder
from .layer_files import (
    Build,
    check_chip,
    check_complete,
    check_sizes,
    choose_build,
    find_builds,
    resolves_to,
    with_count,
)
from .model_kind import refuse_attention, refuse_files, refuse_keys
from .package_config import AGAIN, PackageConfig, read_config
from .package_names import hub_identity, package_aliases
from .package_parts import (
    FLAGS,
    check_pointers,
    find_embedding,
    find_head,
    find_post_config,
    find_scripts,
    gather_evidence,
    read_embedding,
    script_config,
)
from .package_tree import Tree
from .rerank_models import FLAG
from .sampling_defaults import SamplingDefaults, read_sampling
from .tokenizer_choice import choose_tokenizer, contradicts, outer_candidates, sidecar_shape, tokenizer_candidates
from .trimmed_head import find_id_list
from .vision_files import VisionFiles, find_vision

# of problems: what is told first
KIND, ATTENTION, POINTERS, LAYERS, PARTS, TOKENIZER, SAMPLING = range(7)


@dataclass(slots=True)
class Survey:
    """What was found in `root`, None where it was not. `home`: the directory that is the package, usually `root`.
    `outer`: the directory above where only the layers' folder of a package was given. `problems`: the sentence to tell
    first comes first. `warnings`: what is odd but keeps nothing from working."""

    root: Path
    home: Path
    tree: Tree
    config: PackageConfig
    outer: Tree | None = None
    outer_config: PackageConfig | None = None
    builds: list[Build] = field(default_factory=list)
    build: Build | None = None
    head: Path | None = None
    embedding_path: Path | None = None
    embedding: EmbeddingFile | None = None
    sizes: PackageConfig | None = None
    """The configuration, or the run script, that gives the number of layers and the embedding's shape."""
    id_list: Path | None = None
    tokenizer: Path | None = None
    vision: VisionFiles | None = None
    embeds: bool = False
    """It is an embedding model, as its configuration or the files beside its tokenizer say."""
    sidecars: list[PackageConfig] = field(default_factory=list)
    """The original model's config.json, where it lies beside the tokenizer, or in other folders of a .txt file's."""
    sampling: SamplingDefaults = field(default_factory=SamplingDefaults)
    ranked: list[tuple[int, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def noting(self, rank: int) -> Iterator[None]:
        """Keeps what goes wrong inside as a problem."""
        try:
            yield
        except PackageError as error:
            self.ranked.append((rank, str(error)))
        except OSError as error:
            where = error.filename or self.root
            self.ranked.append((rank, f"{where} cannot be read ({error.strerror}): correct its name or permissions"))

    @property
    def problems(self) -> list[str]:
        return [text for _, text in sorted(self.ranked, key=lambda problem: problem[0])]

    @property
    def is_inner(self) -> bool:
        """Whether the directory above is the package's own, not just one that many models lie in."""
        above = self.outer
        if above is None:
            return False
        parts = [above.root / name for name in ("config.json", "post_config.json")]
        own = self.tokenizer is not None and not self.tokenizer.is_relative_to(self.home)
        return own or any(part.is_file() for part in parts)

    @property
    def trees(self) -> list[Tree]:
        return [self.tree] if self.outer is None else [self.tree, self.outer]

    @property
    def places(self) -> list[Path]:
        """Where parts of the package may lie, the layers' directory first."""
        assert self.build is not None
        chain = [self.build.directory, *self.build.directory.parents]
        within = chain[: chain.index(self.home) + 1] if self.home in chain else [chain[0], self.home]
        return within + ([self.outer.root] if self.outer else [])

    @property
    def name(self) -> str:
        """The package's own name: what its configuration says, its id in the hub's cache, or its directory's."""
        return self.config.text("model_name") or hub_identity(self.home) or self.home.name

    @property
    def aliases(self) -> tuple[str, ...]:
        """Every name that the package is known by; see package_names."""
        outer = self.outer_config.text("model_name") if self.outer_config else None
        folders = [self.root, self.home, *([self.build.directory] if self.build else [])]
        folders += [Path(os.path.realpath(self.root)), *([self.outer.root] if self.outer and self.is_inner else [])]
        return package_aliases((self.name, hub_identity(self.home), outer), dict.fromkeys(folders), self.config)


def survey_package(directory: str | os.PathLike[str]) -> Survey:
    """Surveys a directory. What is wrong with it is never raised: see `problems`."""
    root = Path(directory).absolute()
    found = Survey(root, root, Tree(root), PackageConfig(root / "config.json"))
    with found.noting(KIND):
        if not root.is_dir():
            what = "is a file, not a model directory" if root.exists() else "does not exist"
            raise PackageError(
                f"{root} {what}: give the directory of a compiled model (the one with the .axmodel files)"
            )
        found.home = _home(root)
        found.tree = Tree.scan(found.home)
        found.builds = find_builds(found.tree)
        _survey(found)
    return found


def _survey(found: Survey) -> None:
    with found.noting(LAYERS):
        found.config = read_config(found.tree, found.home)
    with found.noting(LAYERS):
        found.build = choose_build(found.tree, found.config, found.builds)
    if found.build is not None:
        _find_config(found)
        with found.noting(LAYERS):
            check_chip(found.tree, found.build, found.config)
        _find_parts(found, found.build)
    if not _is_text_model(found):
        # what looks like layers is something else
        found.build = found.tokenizer = found.head = found.embedding_path = found.embedding = None
        return
    with found.noting(ATTENTION):
        for config in (found.config, *found.sidecars):
            refuse_attention(config)
    if found.build is not None:
        _check_parts(found, found.build)


def _home(root: Path) -> Path:
    """The directory that is the package: the given one, or the only one below it that is a package of its own."""
    reference = root / "refs" / "main"  # a directory of the hub's cache names the snapshot that is meant
    if reference.is_file():
        chosen = root / "snapshots" / reference.read_text(errors="replace").strip()
        root = chosen if chosen.is_dir() else root
    tree = Tree.scan(root)
    home, builds = root, find_builds(tree)
    while builds and all(build.directory != home for build in builds) and not read_config(tree, home).values:
        holders = [child for child in tree.children(home) if any(b.directory.is_relative_to(child) for b in builds)]
        if len(holders) != 1 or tokenizer_candidates(tree, [home], holders) or not _is_package(tree, holders[0]):
            break
        home = holders[0]
    return home


def _is_package(tree: Tree, directory: Path) -> bool:
    """Whether a directory has a configuration or a tokenizer of its own."""
    own = tree.inside(directory, "config.json", "post_config.json", "mode_*.json")
    return bool(own) or bool(tokenizer_candidates(tree, [directory]))


def _find_config(found: Survey) -> None:
    """The configuration that holds for the chosen build where the package's own directory has none: one beside the
    layers, or, where only their folder was given, the one of the package around it."""
    build = found.build
    assert build is not None
    if build.directory != found.home:
        with found.noting(LAYERS):
            inner = read_config(found.tree, build.directory)
            found.config = found.config if found.config.values else inner
        return
    parent = found.home.parent
    if tokenizer_candidates(found.tree, [found.home]) or parent == found.home:
        return
    outer = Tree.scan(parent, depth=2)
    with found.noting(LAYERS):
        config = read_config(outer, parent)
        found.outer, found.outer_config = outer, config
        if not found.config.values:
            found.config = config if resolves_to(outer, config, build) else config.without_build()


def _find_parts(found: Survey, build: Build) -> None:
    scripts = find_scripts(found.trees, found.places)
    has_sizes = any(key in found.config.values for key in FLAGS)
    found.sizes = found.config if has_sizes else script_config(scripts, build) or found.config
    with found.noting(PARTS):
        found.head = find_head(found.trees, found.places, found.config, build)
    with found.noting(PARTS):
        found.embedding_path = find_embedding(found.trees, found.places, found.config, found.builds)
    with found.noting(PARTS):
        found.embedding = read_embedding(found.embedding_path, found.sizes)
    with found.noting(PARTS):
        found.id_list = find_id_list(found.tree, found.config, found.places)
    with found.noting(TOKENIZER):
        _find_tokenizer(found, build, scripts)
    with found.noting(LAYERS):
        found.build = with_count(build, *_layer_count(found))


def _layer_count(found: Survey) -> tuple[int | None, Path]:
    """The number of layers, and the file that says it: of a sidecar only if it is that of this very model."""
    assert found.sizes is not None and found.build is not None
    count, size = found.sizes.size("axmodel_num"), found.embedding.num_bytes if found.embedding else 0
    for sidecar in found.sidecars if count is None else ():
        layers = sidecar.values.get("num_hidden_layers")
        if sidecar_shape(sidecar.path.parent, size) and isinstance(layers, int) and layers > found.build.count:
            return layers, sidecar.path
    return count, found.sizes.path


def _find_tokenizer(found: Survey, build: Build, scripts: list[Path]) -> None:
    evidence = gather_evidence(found.places, found.config, build, found.embedding_path, found.embedding, scripts)
    inner = [place for place in found.places if place in found.tree.files]
    candidates = tokenizer_candidates(found.tree, inner, _others(found.builds, build))
    if not candidates and found.outer is not None:
        candidates = outer_candidates(found.outer, _others(find_builds(found.outer), build), evidence)
    tokenizer = found.tokenizer = choose_tokenizer(candidates, evidence, found.root)
    folders = [tokenizer] if tokenizer.is_dir() else _tokenizer_folders(found)
    for folder in folders:
        if folder != found.config.path.parent:
            values = read_config(Tree(folder), folder).values
            # what class the original was says nothing of what was compiled
            kept = {key: value for key, value in values.items() if key != "architectures"}
            found.sidecars.append(PackageConfig(folder / "config.json", kept))
    if contradicts(tokenizer, build.prefix):
        found.warnings.append(
            f"{tokenizer.name} is the only tokenizer, but the layers are called {build.prefix}: is it the right one?"
        )


def _tokenizer_folders(found: Survey) -> list[Path]:
    """Folders called after a tokenizer: with a .txt file the vendor's runner looks there for what config.json lacks."""
    folders = [folder for tree in found.trees for place in found.places for folder in tree.children(place)]
    return [folder for folder in dict.fromkeys(folders) if "tokenizer" in folder.name.lower()]


def _others(builds: Iterable[Build], mine: Build | None) -> set[Path]:
    """Directories of builds other than the chosen one."""
    return {build.directory for build in builds} - ({mine.directory} if mine else set())


def _is_text_model(found: Survey) -> bool:
    """Whether the package holds a language model for text; if not, what it is becomes the first problem."""
    before = len(found.ranked)
    with found.noting(KIND):
        family = found.build.prefix.lower() if found.build else None
        others = list(_beside(found))
        if found.build is not None:
            names = [family or "", found.build.directory.name, found.home.name]
            found.vision = find_vision(found.config, found.sidecars, names, [path for path, _ in others])
        has_eyes = found.vision is not None
        for config in (found.config, *found.sidecars):
            refuse_keys(config, family, has_eyes)
        refuse_files(found.build.files if found.build else [], others, has_eyes)
        signs = [path for path, _ in others if path.name == SIGN or path.parent.name == POOLING]
        rankers = [path for path in signs if is_cross_encoder(path)]
        found.embeds = len(signs) > len(rankers) or found.config.asks("is_embedding") is not None
        if rankers and not found.config.asks(FLAG):
            more = f"and config.json has no {FLAG}: to rank documents, serve it with --reranker"
            found.warnings.append(f"{rankers[0].name} is a reranker's, {more}")
    return len(found.ranked) == before


def _beside(found: Survey) -> Iterator[tuple[Path, str]]:
    """Files of the package beside its layers and head, each with its name within the package."""
    own = {found.head, *(path for build in found.builds for path in build.files)}
    for tree in found.trees:
        if tree is found.tree:
            folders = list(set(tree.directories) - _others(found.builds, found.build))
        elif found.is_inner:
            near = {tree.root, *tree.children(tree.root)}
            folders = list(near - _others(find_builds(tree), None))
        else:
            folders = []
        yield from ((path, tree.relative(path)) for folder in sorted(folders) for path in tree.files[folder]
                    if path not in own)  # fmt: skip
    if found.tokenizer is not None and found.tokenizer.is_dir():
        yield from ((path, path.name) for path in sorted(found.tokenizer.glob("*.json")))


def _check_parts(found: Survey, build: Build) -> None:
    with found.noting(POINTERS):
        check_pointers(found.home, build, found.head, found.embedding_path, found.tokenizer)
    with found.noting(LAYERS):
        check_complete(found.tree, build)
        check_sizes(build)
    with found.noting(SAMPLING):
        generation = found.tokenizer / "generation_config.json" if found.tokenizer else None
        post = find_post_config(found.trees, found.places, found.config)
        named = found.config.text("post_config_path")
        if named and post != found.config.resolve(named):
            found.warnings.append(
                f"{found.config.path} names {named} as post_config_path, which is missing:"
                f" {f'{post} counts' if post else 'the package says nothing of sampling'}; {AGAIN}"
            )
        found.sampling = read_sampling(post, found.config, generation if generation and generation.is_file() else None)
