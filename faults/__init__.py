"""Real faults on real QEMU: each phase of a migration, each party, each way to fail.

`make faults` runs all of it and writes the table into the docs; a sample is a test. `cases` is the
matrix as data, `world` the two hosts and the wires between them, `flight` one guest on its way,
`inject` does the harm, `judge` says whether the law held, `worker` and `runner` go through them.
"""
