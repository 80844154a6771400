"""`axpress pull | list | show | rm`: models by name on disk; and which directory, or which model, `serve` means."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from axpress.core.device.model_loader import default_model
from axpress.core.errors import AxpressError, PackageError
from axpress.core.model_store import DEFAULT, Entry, ModelStore, Plan, StoredModel, find_entry, known_names, pull

from .argument_parser import no_such_model
from .check_command import render, report_on

NO_DEFAULT = (
    f"axpress: {DEFAULT} is not here (`axpress pull {DEFAULT}` fetches it): serving the built-in TOY, a few million"
    " parameters that know our own sentences only"
)

NO_MODEL = (
    f"no MODEL is given, {DEFAULT} is not here (`axpress pull {DEFAULT}` fetches it), and this wheel has no toy (its"
    " weights are a wheel of their own, axpress_toy)"
)


def model_directory(given: Path) -> tuple[Path, tuple[str, ...]]:
    """The directory that a MODEL of the command line means, a path or a name, and the names that a model by name is
    known by. OSError: neither."""
    if given.is_dir():
        return given, ()
    store = ModelStore()
    if found := store.find(str(given)):
        return found.directory, tuple(dict.fromkeys((found.name, found.repository)))
    try:
        entry = find_entry(str(given))
    except PackageError as error:
        known = "; did you mean" in str(error)
        raise OSError(str(error) if known and not given.parent.name else no_such_model(given)) from None
    if "/" in entry.name:  # as likely a path that is not there
        raise OSError(f"{no_such_model(given)}, `axpress pull {given}` fetches it from the hub") from None
    raise OSError(f"the model {entry.name} is not here yet: axpress pull {entry.name}")


def default_directory() -> tuple[Path, tuple[str, ...]] | None:
    """The default model, which is offered to be pulled where somebody is there to ask. None: it is not here."""
    found = ModelStore().find(DEFAULT)
    if found is None and sys.stdin.isatty() and sys.stderr.isatty() and _agreed(find_entry(DEFAULT)):
        try:
            found = fetch(DEFAULT, None)
        except AxpressError as error:
            print(f"axpress: {error}", file=sys.stderr)
    if found is None:
        if not default_model().is_dir():
            raise PackageError(NO_MODEL)
        print(NO_DEFAULT, file=sys.stderr, flush=True)
        return None
    return found.directory, (found.name,)


def _agreed(entry: Entry) -> bool:
    size = f"{(entry.download_bytes or 0) / 1e6:.0f} MB to download, {(entry.disk_bytes or 0) / 1e6:.0f} MB on disk"
    question = f"{entry.name} is not here yet ({entry.title}; {entry.licence}). Fetch it now, {size}? [Y/n] "
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("", "y", "yes")


def fetch(name: str, revision: str | None) -> StoredModel:
    """Pulls a model, telling on stderr what it does. PackageError."""
    entry = find_entry(name)
    progress = sys.stderr.isatty()

    def tell(plan: Plan) -> None:
        card = f"; at least {plan.card / 1e6:.0f} MB of a card's memory" if plan.card else ""
        print(
            f"axpress: pulling {entry.name}: {plan.download / 1e6:.0f} MB to download, {plan.disk / 1e6:.0f} MB on disk"
            f" ({plan.free / 1e6:.0f} MB free){card}",
            file=sys.stderr, flush=True,
        )  # fmt: skip

    return pull(ModelStore(), entry, revision=revision, tell=tell, verify=_verify, progress=progress)


def _verify(package: Path) -> None:
    report = report_on(package)
    trouble = report["reason"] or next((text for text in report["warnings"] if "tokenizer" in text), None)
    if trouble:
        raise PackageError(f"what was fetched cannot be served: {trouble.replace(f'{package}/', '')}")


def pull_model(arguments: argparse.Namespace) -> int:
    """`axpress pull`; the exit code."""
    entry = find_entry(arguments.name)
    if found := ModelStore().find(entry.name):
        print(
            f"axpress: {found.name} is here already ({found.record.revision}): `axpress rm {found.name}` first to fetch"
            " it anew",
            file=sys.stderr,
        )
    else:
        found = fetch(arguments.name, arguments.revision)
    return _tell(found, arguments.json)


def list_models(arguments: argparse.Namespace) -> int:
    """`axpress list`; the exit code."""
    store = ModelStore()
    models = [_summary(model) for model in store.models()]
    here = {model["name"] for model in models}
    more = [name for name in known_names() if name not in here]
    if arguments.json:
        print(json.dumps({"directory": str(store.root), "models": models, "known": more}, indent=2))
        return 0
    rows = [("NAME", "FAMILY", "SIZE", "CONTEXT", "FROM", "WHEN")]
    for model in models:
        size = f"{model['bytes'] / 1e6:.0f} MB"
        rows.append((model["name"], model["family"] or "?", size, str(model["context"] or "?"), model["source"],
                     model["pulled_at"][:10]))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows if models else ():
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    print(f"{'' if models else 'no models '}in {store.root}; `axpress pull` knows {', '.join(more) or 'no more'},"
          " and any ORG/NAME of the hub")  # fmt: skip
    return 0


def show_model(arguments: argparse.Namespace) -> int:
    """`axpress show`; the exit code."""
    return _tell(ModelStore().get(arguments.name), arguments.json)


def remove_model(arguments: argparse.Namespace) -> int:
    """`axpress rm`; the exit code."""
    size = ModelStore().remove(arguments.name)
    if arguments.json:
        print(json.dumps({"removed": arguments.name, "bytes": size}))
    else:
        print(f"{arguments.name} is removed: {size / 1e6:.0f} MB")
    return 0


def _summary(model: StoredModel) -> dict[str, Any]:
    report = report_on(model.directory)
    rows = report["shapes"]["rows"]
    return asdict(model.record) | {
        "directory": str(model.directory), "family": report["family"], "context": rows, "opens": report["opens"]
    }  # fmt: skip


def _tell(model: StoredModel, as_json: bool) -> int:
    """Prints all about a model; the exit code."""
    report = report_on(model.directory)
    record = asdict(model.record)
    if as_json:
        print(json.dumps({**record, "directory": str(model.directory), "check": report}, indent=2, ensure_ascii=False))
    else:
        shown = {**record, "directory": model.directory, "bytes": f"{model.record.bytes / 1e6:.0f} MB"}
        for key, value in shown.items():
            print(f"{key.replace('_', ' ') + ':':<13}{value if value is not None else 'not said'}")
        print(render(report))
        print(f"now: axpress serve {model.name}    or: axpress run {model.name}")
    return 0 if report["opens"] else 1
