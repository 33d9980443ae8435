"""A small disk that can be full: a file system in memory, in a mount namespace of this process and its children.

The namespace goes with its last process, so nothing stays mounted whatever happens to us. Root has it at once, another
account where the kernel lets users have namespaces of their own; where neither works (or there is no Linux) there is
no small disk, and the run says so.
"""

import ctypes
import os
import sys
from pathlib import Path
from typing import Final

SIZE_BYTES: Final = 3 << 30
SPARE_BYTES: Final = 64 << 10
"""What is left on a full disk: enough for nothing that matters."""
_NEW_NAMESPACE: Final = 0x0002_0000
_NEW_USER: Final = 0x1000_0000
_RECURSIVE_PRIVATE: Final = (1 << 14) | (1 << 18)
_REMOUNT: Final = 32


class NoSmallDisk(Exception):
    """This system lets us mount nothing."""


def _check(result: int, what: str) -> None:
    if result != 0:
        raise NoSmallDisk(f"{what}: {os.strerror(ctypes.get_errno())}")


def own_mounts() -> None:
    """From now on this process and its children have mounts of their own. Before any thread starts. `NoSmallDisk`."""
    if sys.platform != "linux":
        raise NoSmallDisk("only Linux has mount namespaces")
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        _check(libc.unshare(_NEW_NAMESPACE), "a mount namespace")
    else:
        _check(libc.unshare(_NEW_USER | _NEW_NAMESPACE), "a user's own mount namespace")
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            Path(f"/proc/self/{name}").write_text(text)
    _check(libc.mount(b"none", b"/", None, _RECURSIVE_PRIVATE, None), "private mounts")


class SmallDisk:
    """A file system of `SIZE_BYTES` at `path`, which an existing folder's owner and mode are given to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._libc = ctypes.CDLL(None, use_errno=True)
        found = path.stat()
        self._mount(0, f"size={SIZE_BYTES},mode={found.st_mode & 0o777:o},uid={found.st_uid},gid={found.st_gid}")

    def _mount(self, flags: int, options: str) -> None:
        done = self._libc.mount(b"tmpfs", str(self._path).encode(), b"tmpfs", flags, options.encode())
        _check(done, f"a file system at {self._path}")

    def fill(self) -> None:
        """Nothing more fits."""
        found = os.statvfs(self._path)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        self._mount(_REMOUNT, f"size={used + SPARE_BYTES}")

    def empty(self) -> None:
        """There is room again."""
        self._mount(_REMOUNT, f"size={SIZE_BYTES}")

    def close(self) -> None:
        """Take it away; what still uses it keeps it until it ends."""
        self._libc.umount2(str(self._path).encode(), 2)
