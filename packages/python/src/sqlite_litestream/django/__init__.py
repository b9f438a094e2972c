"""A database engine for Django: `"ENGINE": "sqlite_litestream.django"`, with the replica and settings in `OPTIONS`."""
