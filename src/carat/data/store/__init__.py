"""Stores: datasets on disk as flat arrays, offsets and a JSON manifest."""

from carat.data.store.store import Store, open_store

__all__ = ["Store", "open_store"]
