"""Take from decoder processes what they do not need: the keys of the environment, the network, other programs.

Media from strangers is decoded by FFmpeg's libraries, in which a flaw may run the file's code. Such code finds no key
in its environment. On Linux for x86-64 and ARM64 a seccomp filter also denies it sockets, other programs and the memory
of other processes; the filter needs no permission and costs a few microseconds. Elsewhere, and where the system forbids
filters, decoders run without it, and commits say so (`decoder_network`). Files stay readable: a decoder has the same
user as its worker, so it could read what that user may read, even /proc/PID/environ.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from collections.abc import Mapping

__all__ = ["decoder_environment", "deny_network"]

# What Python and the libraries need to start, and nothing that may hold a key.
NEEDED_VARIABLES = frozenset(
    (
        *("HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LD_PRELOAD", "PATH", "TMPDIR", "TZ", "VIRTUAL_ENV"),
        *("LC_ALL", "LC_CTYPE", "LC_MESSAGES", "LC_NUMERIC", "GLIBC_TUNABLES", "MALLOC_ARENA_MAX"),
        *("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OPENBLAS_NUM_THREADS"),
        *("PYTHONDONTWRITEBYTECODE", "PYTHONFAULTHANDLER", "PYTHONHASHSEED", "PYTHONHOME", "PYTHONMALLOC"),
        *("PYTHONNOUSERSITE", "PYTHONPATH", "PYTHONPYCACHEPREFIX", "PYTHONSAFEPATH", "PYTHONUSERBASE", "PYTHONUTF8"),
        "PYTHONWARNINGS",
    )
)

# For each machine: the identifier of its system calls, the number of `seccomp`, and the numbers of the denied calls:
# socket, socketpair, io_uring_setup, execve, execveat, ptrace, process_vm_readv, process_vm_writev, pidfd_getfd.
SYSTEM_CALLS = {
    "x86_64": (0xC000003E, 317, (41, 53, 425, 59, 322, 101, 310, 311, 438)),
    "aarch64": (0xC00000B7, 277, (198, 199, 425, 221, 281, 117, 270, 271, 438)),
}
X32_BIT = 0x40000000  # x86-64 has a second set of numbers above it

PR_SET_NO_NEW_PRIVS = 38
SECCOMP_SET_MODE_FILTER = 1
# Without this flag, older kernels slow down every branch of a process that has a filter.
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 1 << 2
LOAD_WORD, JUMP_EQUAL, JUMP_GREATER_EQUAL, RETURN = 0x20, 0x15, 0x35, 0x06
NUMBER_OFFSET, MACHINE_OFFSET = 0, 4  # in `struct seccomp_data`
ALLOW, DENY, KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000


class _Program(ctypes.Structure):
    """The `struct sock_fprog` of a filter."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def decoder_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the part of an environment that a decoder process gets."""
    return {name: value for name, value in environment.items() if name in NEEDED_VARIABLES}


def deny_network() -> bool:
    """Deny this thread and its later forks sockets, programs and the memory of others; return whether it worked."""
    if platform.system() != "Linux" or platform.machine() not in SYSTEM_CALLS:
        return False
    machine, seccomp, denied = SYSTEM_CALLS[platform.machine()]
    instructions = _build_filter(machine, denied)
    program = _Program(len(instructions) // 8, instructions)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0))):
            return False
        arguments = (ctypes.c_ulong(SECCOMP_SET_MODE_FILTER), ctypes.c_ulong(SECCOMP_FILTER_FLAG_SPEC_ALLOW))
        return bool(libc.syscall(ctypes.c_long(seccomp), *arguments, ctypes.byref(program)) == 0)
    except (OSError, AttributeError):
        return False


def _build_filter(machine: int, denied: tuple[int, ...]) -> bytes:
    """Assemble a filter that kills calls of another machine and answers the denied calls with EPERM."""
    checks = [(JUMP_GREATER_EQUAL, X32_BIT), *((JUMP_EQUAL, number) for number in denied)]
    deny, kill = len(checks) + 1, len(checks) + 2  # positions after the first check
    lines = [(LOAD_WORD, 0, 0, MACHINE_OFFSET), (JUMP_EQUAL, 0, kill + 1, machine), (LOAD_WORD, 0, 0, NUMBER_OFFSET)]
    lines += [(code, deny - position - 1, 0, value) for position, (code, value) in enumerate(checks)]
    lines += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, DENY), (RETURN, 0, 0, KILL)]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
