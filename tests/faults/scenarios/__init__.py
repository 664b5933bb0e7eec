"""Importing this registers every scenario."""

from . import addresses, hostile, kept, large, mqtt, name_server, partitions, process, strangers, weather  # noqa: F401
