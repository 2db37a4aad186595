"""Looking for what keeps a daemon from working, or from working well, and saying what mends it.

::

    findings    what a check answers: Finding; what it is given: Situation
    folder      the store's folder and who may use it · disk  space, flushing · catalogue  the database
    network     port, proxies, who reaches what · certificate  TLS · machine  clock, limits · daemon  the one that runs
    checks      the list of them all; a new one is a function and a line there

Nothing is changed by it: no store is made, no catalogue brought up to date, nothing removed.
"""
