"""Looking for what keeps a daemon from working, or from working well, and saying what mends it.

::

    findings    what a check answers: Finding; what it is given: Situation
    folder      the store's folder, or the spool, and who may use it · rights · disk  space, flushing
    machine     clock, limits
    catalogue   whether it can be used · cataloguefile · database  PostgreSQL below it
    bucket      what is in it, and whose it is · requests  signed ones, and its clock
    cluster     the daemons with the same catalogue · peers  reaching them
    network     port, who reaches what · proxies · certificate  TLS · running  the daemon that runs, its settings
    checks      the list of them all, each within a bound; a new one is a function and a line there

Nothing is changed by it: no store is made, no catalogue brought up to date, nothing removed.
"""
