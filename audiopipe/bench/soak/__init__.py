"""Soak test: a run for hours on this machine with everything disturbed, and a report of pace, memory and losses.

`run.py` is the order of events; `hosts` has the workers, `faults` what happens to them, `sampler` measures, `checks`
compares the output with that of an undisturbed run, `result` judges, `page` draws.
"""
