"""`python -m facedistill`."""

from facedistill.cli import main

main()
