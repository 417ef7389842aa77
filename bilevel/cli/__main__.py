"""`python -m bilevel.cli`, as `python -m bilevel`."""

from bilevel.cli import main

main()
