"""`python -m sqlite_litestream`: see `_cli`."""

from ._cli import main

main()
