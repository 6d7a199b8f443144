"""Reading foreign data into the lake: releases, archives, checks, and the Ray Data jobs that run them.

May import: lesionary. Never store, trainers or cli; ray only in the `*_job.py` modules.
"""
