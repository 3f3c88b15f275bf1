"""Two runs beside each other: what may be said of a change, and no more.

Rule 1: three questions, three answers. A test says whether chance explains the change, an interval how large the
        change may be, a threshold what size matters. A change is called one only when all three say so.
Rule 2: what cannot be told is `inconclusive`, with the number of trials that would tell; it is never `no-change`.
Rule 3: nothing depends on which side is called base: sides swapped, every verdict is its opposite.
Rule 4: the same two samples give the same answer, to the last digit: the dice of the bootstrap are fixed.

`significance` has the tests, `effects` the sizes with their intervals, `verdicts` the rules that join them, `prices`
what the plainest of these rules costs. scipy.stats is imported by the functions that call it: nobody else pays for it.
"""
