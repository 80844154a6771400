"""axpress's HTTP server and command line."""

from importlib import metadata


def version() -> str:
    """The installed version of axpress, "unknown" in a tree that was not installed."""
    try:
        return metadata.version("axpress")
    except metadata.PackageNotFoundError:
        return "unknown"
