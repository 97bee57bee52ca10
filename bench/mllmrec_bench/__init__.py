"""How speed is measured: generated data that is like real data, the peers of each kernel, timing, plots.

    source.py        where real vectors come from: a file, a dataset, a run, or the demo shop's text
    embeddings.py    N rows with the spectrum and the neighbours of n real ones
    interactions.py  long-tailed interactions, graphs, vectors of users and items
    material.py      what the ops are measured on: generated data, a dataset, a run
    timing.py        methods in turn, one number of threads, quantiles
    memory.py        peak memory of one call
    peers/           each kernel beside what a user would otherwise pick
    bench.py         one op on one case: mllmrec and its peers
    scale.py         graph construction over a range of sizes, and its exponent
    results.py       the one long CSV
    plots.py         pictures drawn from that CSV alone

Times are of use as ratios only, taken in one process with the methods in turn; nothing here is a test.
"""
