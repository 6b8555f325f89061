"""A seeded fault campaign: commands with damaged files, failing system calls, sudden ends, and no room to work in.

    python -m tests.campaign --faults 10000 --seed 1 --minutes 60

Each case is a command in a folder of its own, one fault, and a judgement that knows nothing of how the command works:
see `judging`. A case is its number and the campaign's seed, nothing else, so that `--only NUMBER` repeats it.
"""
