"""`python -m mllmrec_cli`."""

from mllmrec_cli.main import main

main()
