"""The public benchmark of job queues in PostgreSQL, with this pipeline as one of its systems.

It is https://github.com/hardbyte/postgresql-job-queue-benchmarking: another project's workloads,
phases of chaos, measurements and report. Nothing of it is in this repository; a checkout is given.
What is here makes it run without Docker, and adds the systems for which it has no program that
runs: ours (`ours`), awa from Python (`awa_python`) and PgQueuer (`pgqueuer_system`).
"""
