"""The prediction: nat, link and traversal played against each other in one process, in virtual time.

`predict_cell(plan, settings, seed, trials)`    how often and how fast the two ends of a cell meet, and how we know
`play(plan, settings, seed)`                    one trial: what both ends said, and what was dropped where
"""
