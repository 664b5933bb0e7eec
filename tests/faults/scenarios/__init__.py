"""Importing this registers every scenario."""

from . import addresses, hostile, name_server, partitions, process, strangers, weather  # noqa: F401
