"""Importing this registers every scenario."""

from . import addresses, hostile, kept, large, name_server, partitions, process, strangers, weather  # noqa: F401
