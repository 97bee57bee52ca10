"""The harness of `mllmrec bench | scale | plots`: generated data like real data, peers of each kernel, timing, plots.

    embeddings.py    N rows with the spectrum and the neighbors of n real ones
    interactions.py  long-tailed interactions, graphs, vectors of users and items
    datasets.py      the data of an op: generated, a dataset, a run; the real vectors behind it
    timing.py        methods in turn, one number of threads, quantiles, peak memory
    peers/           each kernel beside other libraries, which the extra `bench` installs
    bench.py         one op on one case: mllmrec and its peers
    scale.py         graph construction over a range of sizes, and its exponent
    results.py       the one long CSV
    plots.py         pictures drawn only from that CSV

Times are of use as ratios only, taken in one process with the methods in turn; nothing here is a test.
"""
