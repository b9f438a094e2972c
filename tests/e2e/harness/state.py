"""The folder of local state that a primary keeps beside its database."""

from pathlib import Path


def state_folder(database: Path) -> Path:
    """What belongs to the database."""
    return database.with_name(f".{database.name}-litestream")


def replica_states(database: Path) -> list[Path]:
    """What belongs to each of its replicas, in no order."""
    folder = state_folder(database) / "replicas"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def replica_state(database: Path) -> Path:
    """What belongs to its only replica."""
    (state,) = replica_states(database)
    return state
