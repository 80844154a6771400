"""Which files of a model directory are the transformer layers, and which build they are where there are several."""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import PackageError
from ..files import lfs_pointer_size
from .package_config import AGAIN, TEMPLATE, PackageConfig
from .package_tree import Tree
from .simulated_axmodel import is_simulated
from .target_chip import other_chip

LAYER_NAME = re.compile(
    r"(?P<before>.*(?:^|[_.-])l(?:ayers?)?[_.-]?)(?P<layer>\d+)(?P<after>(?:[_.-][^/]*)?\.axmodel)", re.IGNORECASE
)
NUMBER = re.compile(r"%0?\d*[diu]")  # the place of the layer's number, as printf spells it
# of the median layer file: compiled layers of one model differ by far less, a cut download by more
SMALLEST_LAYER = 0.9
HEAD_NAMES = ("*_post.axmodel", "*post*.axmodel", "*lm_head*.axmodel")
SAME_SIZE = 0.02  # layers of two precisions come in groups of one size; a cut file has a size of its own
MAX_LAYERS = 1000  # no model has as many; keeps a damaged number from becoming as many paths


@dataclass(frozen=True, slots=True)
class Build:
    """Layer files of one compiled model: those of one directory whose names differ by the layer's number only.

    `template`: the name with %d for the number. `count`: layers that there should be."""

    directory: Path
    template: str
    layers: Mapping[int, Path]
    count: int

    @property
    def prefix(self) -> str:
        """What stands before chunk and layer in the names: the model_type of the checkpoint that was compiled."""
        return re.sub(r"(_p\d+)?(?:^|[_.-])l(ayers?)?[_.-]?%.*$", "", self.template, flags=re.IGNORECASE)

    @property
    def chunk(self) -> int | None:
        """The chunk's width, where the names tell it (`_p128_`)."""
        found = re.search(r"_p(\d+)[_.-]", self.template)
        return int(found[1]) if found else None

    @property
    def files(self) -> tuple[Path, ...]:
        """The layers' files in order; all are there once `check_complete` has passed."""
        return tuple(self.layers[layer] for layer in sorted(self.layers))

    def file_of(self, layer: int) -> Path:
        """Where the file of a layer is, or should be."""
        return self.layers.get(layer) or self.directory / NUMBER.sub(lambda match: match[0] % layer, self.template)

    @property
    def is_whole(self) -> bool:
        """Whether every layer is there, and none as a Git LFS pointer."""
        there = sorted(self.layers) == list(range(self.count))
        return there and not any(lfs_pointer_size(path) is not None for path in self.files)


def find_builds(tree: Tree) -> list[Build]:
    """Every set of layer files below the root, nearest first."""
    found: dict[tuple[Path, str, str], dict[str, Path]] = {}
    for path in tree.find("*.axmodel"):
        if match := LAYER_NAME.fullmatch(path.name):
            found.setdefault((path.parent, match["before"], match["after"]), {})[match["layer"]] = path
    builds = []
    for (directory, before, after), by_text in found.items():
        layers = {int(text): path for text, path in by_text.items()}
        padding = max((len(text) for text in by_text if len(text) > 1 and text.startswith("0")), default=0)
        number = f"%0{padding}d" if padding else "%d"
        if (0 in layers or len(layers) > 1) and max(layers) < MAX_LAYERS:
            builds.append(Build(directory, f"{before}{number}{after}", layers, max(layers) + 1))
    return builds


def choose_build(tree: Tree, config: PackageConfig, builds: list[Build]) -> Build:
    """The build that the configuration names, else the one in the root itself, else the only one for this card.

    PackageError: there is none, or several and nothing says which."""
    if config.text(TEMPLATE) is not None:
        return _configured(tree, config, builds)
    return with_count(_only(tree, builds, config), config.size("axmodel_num"), config.path)


def resolves_to(tree: Tree, config: PackageConfig, build: Build) -> bool:
    """Whether the package in the tree's root is that build, or holds no other."""
    try:
        chosen = choose_build(tree, config, find_builds(tree))
    except PackageError:
        return False
    return chosen.directory == build.directory and chosen.layers == build.layers


def _configured(tree: Tree, config: PackageConfig, builds: list[Build]) -> Build:
    template = (config.text(TEMPLATE) or "").replace("\\", "/")
    name = Path(template).name
    if len(NUMBER.findall(name)) != 1:
        raise PackageError(f"{config.path} must give a {TEMPLATE} with one %d in it, not {template!r}: {AGAIN}")
    count = config.size("axmodel_num")
    pattern = re.compile(r"(\d+)".join(map(re.escape, NUMBER.split(name))), re.IGNORECASE)
    stated = Path(os.path.normpath(config.base / template)).parent
    found = [Build(folder, name, layers, max(layers) + 1) for folder, layers in _matching(tree, stated, pattern)]
    places = (stated, tree.root)
    build = next((build for place in places for build in found if build.directory == place), None)
    build = build or (_only(tree, found, config) if found else None)
    if build is None:
        there = some([tree.relative(other.directory / other.template) for other in builds])
        hint = f" (there is {there}: correct {TEMPLATE} in {config.path})" if builds else ""
        missing = stated / NUMBER.sub(lambda match: match[0] % 0, name)
        raise PackageError(f"{missing} is missing: layer 0 of {count or 'the model'}{hint}; {AGAIN}")
    return with_count(build, count, config.path)


def _matching(tree: Tree, stated: Path, pattern: re.Pattern[str]) -> Iterable[tuple[Path, dict[int, Path]]]:
    """Directories with files of these names: the one that is stated, also outside of the tree, and those within."""
    outside = [] if stated in tree.files or not stated.is_dir() else [(stated, sorted(stated.iterdir()))]
    for folder, files in [*outside, *tree.files.items()]:
        layers = {int(match[1]): path for path in files if (match := pattern.fullmatch(path.name))}
        if layers and max(layers) < MAX_LAYERS:
            yield folder, layers


def with_count(build: Build, count: int | None, where: Path) -> Build:
    """The build with the number of layers that `where` says it has (None: as many as there are). PackageError: there
    are more."""
    if count is None:
        return build
    if count > MAX_LAYERS:
        raise PackageError(f"{where} has axmodel_num = {count}, more layers than any model has: {AGAIN}")
    if build.count > count:
        raise PackageError(
            f"{where} says axmodel_num {count}, but {build.file_of(build.count - 1)} is there too: correct axmodel_num,"
            " or remove the layers of the other model"
        )
    return replace(build, count=count)


def _only(tree: Tree, builds: list[Build], config: PackageConfig) -> Build:
    """The only build for this card; of several the one in the root, or the only one that is whole."""
    ours = [build for build in builds if _chip(tree, build, config) is None]
    if builds and not ours:
        build = builds[0]
        raise PackageError(
            f"{build.directory} is compiled for the {_chip(tree, build, config)}, as its name says, and runs on that"
            " chip only: give a build for the AX650 (AX8850)"
        )
    own = [build for build in ours if build.directory == tree.root and tree.inside(tree.root, *HEAD_NAMES)]
    chosen = own or ours
    if scattered := _parts(chosen):
        raise PackageError(scattered)
    if len(chosen) > 1:
        whole = [build for build in chosen if build.is_whole]
        chosen = whole if len(whole) == 1 else chosen
    if not chosen:
        raise PackageError(_no_layers(tree))
    if len(chosen) > 1:
        raise PackageError(_several(tree, chosen))
    return chosen[0]


def check_chip(tree: Tree, build: Build, config: PackageConfig) -> None:
    """PackageError if the names of the build's directory, or of the package, tell another chip than the card's."""
    _only(tree, [build], config)


def _chip(tree: Tree, build: Build, config: PackageConfig) -> str | None:
    places = [build.directory, *build.directory.parents]
    within = places[: places.index(tree.root) + 1] if tree.root in places else places[:1]
    return other_chip([build.template, *(place.name for place in within), config.text("model_name") or ""])


def _several(tree: Tree, builds: list[Build]) -> str:
    folders = list(dict.fromkeys(build.directory for build in builds))
    if len(folders) == len(builds):
        names = some([tree.relative(folder) for folder in folders])
        return (
            f"{tree.root} holds several models ({names}) and nothing says which one is meant: give the directory of one"
            f" of them, such as {folders[0]}"
        )
    names = some([tree.relative(build.directory / build.template) for build in builds])
    return (
        f"{tree.root} holds several models ({names}) and no config.json that picks one: keep one, or name it in"
        f" config.json as {TEMPLATE}"
    )


def _parts(builds: list[Build]) -> str | None:
    """What to say where the layers of one model lie scattered over several directories."""
    numbers = [layer for build in builds for layer in build.layers]
    same_name = len({build.template.lower() for build in builds}) == 1
    if len(builds) < 2 or not same_name or sorted(numbers) != list(range(len(numbers))):
        return None
    ordered = sorted(builds, key=lambda build: min(build.layers))
    parts = [f"{min(build.layers)} to {max(build.layers)} in {build.directory}" for build in ordered]
    return f"the layers of one model lie in several directories ({some(parts)}): move them into one of them"


def _no_layers(tree: Tree) -> str:
    """What the directory is instead, where it has no layers."""
    if tars := tree.find("*_l[0-9]*.tar", "*_l[0-9]*.tar.gz"):
        return (
            f"{tars[0]} and {len(tars) - 1} more are layers split over several cards (tensor parallel, packed as .tar),"
            " which is not supported: get the package for one card, with .axmodel files"
        )
    if packed := tree.find("*.tar.gz", "*.tgz", "*.tar", "*.zip", "*.7z"):
        return f"{packed[0]} is packed: unpack it in {packed[0].parent}, and give the directory with the layers"
    if tree.find("*.safetensors", "pytorch_model*.bin"):
        return (
            f"{tree.root} is a Hugging Face checkpoint, not a compiled model: run `axpress convert {tree.root} OUT_DIR`"
            " first"
        )
    if ggufs := tree.find("*.gguf"):
        return (
            f"{ggufs[0]} is a GGUF model, not a compiled one: get the model's package for the AX650, or run `axpress"
            f" convert {ggufs[0]} OUT_DIR` for the emulated card"
        )
    others = tree.find("*.axmodel")
    what = f" (only {some([tree.relative(path) for path in others])})" if others else ""
    broken = f" ({some([str(path) for path in tree.broken])}: links to nothing)" if tree.broken else ""
    return (
        f"{tree.root} is not a model directory: there is no ..._l0_together.axmodel in it{what}{broken}; give the"
        f" directory that has one, or {AGAIN}"
    )


def check_complete(tree: Tree, build: Build) -> None:
    """PackageError names the first layer that is missing."""
    missing = [layer for layer in range(build.count) if layer not in build.layers]
    if missing:
        path = build.file_of(missing[0])
        state = "is a link to nothing" if path in tree.broken else "is missing"
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise PackageError(f"{path} {state}: layer {missing[0]} of {build.count}{more}; {AGAIN}")


def check_sizes(build: Build) -> None:
    """PackageError names a layer that is far smaller than the others and has a size of its own: a cut download."""
    sizes = {path: path.stat().st_size for path in build.files}
    middle = statistics.median(sizes.values())
    for path, size in sizes.items():
        if size == 0:
            raise PackageError(f"{path} is empty: {AGAIN}")
        like = sum(abs(other - size) <= SAME_SIZE * size for other in sizes.values())
        if size < SMALLEST_LAYER * middle and like == 1 and not is_simulated(path):
            raise PackageError(
                f"{path} has {size} bytes, the model's other layers about {middle:.0f}: it was cut short, {AGAIN}"
            )


def some(names: list[str], most: int = 5) -> str:
    """The names, or the first of them and how many there are more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
