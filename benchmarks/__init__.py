"""How much the plugin costs, as ratios of one run: `python -m benchmarks`.

A ratio compares ours with something bare that does the least that could be done, in
paired turns on the same machine. Nothing here is a test, and no test asserts a time.
"""
