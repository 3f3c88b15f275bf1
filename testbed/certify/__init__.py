"""A NAT of a lab, measured against its profile.

`certify(subjects)`   every behaviour that a profile declares, a row each
`quick(subjects)`     the four that decide whether two peers meet, in a fraction of a second

`rows.py` and `judgement.py` are pure: what is declared, and what an observation means. `stage.py` is the lab; the other
files measure in it. Each NAT has a process and a lab of its own (`pool.py`).
"""
