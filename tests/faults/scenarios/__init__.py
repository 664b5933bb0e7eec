"""Importing this registers every scenario."""

from . import addresses, hostile, name_server, partitions, process, weather  # noqa: F401
