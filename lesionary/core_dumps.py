"""No core dumps: the memory of a process that reads foreign files holds names of patients."""

import resource


def forbid_core_dumps() -> None:
    """From here on a crash of this process, or of one that it starts, leaves no image of its memory on disk.

    The limit is one byte, not none: where the kernel hands cores to a program instead of writing files, it heeds only
    that one (man 5 core, Linux' `fs/coredump.c`).
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    allowed = 1 if most == resource.RLIM_INFINITY else min(1, most)
    resource.setrlimit(resource.RLIMIT_CORE, (allowed, most))
