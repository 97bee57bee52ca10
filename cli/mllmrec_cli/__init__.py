"""The command line of mllmrec: parse, configure, call the library once, print."""
