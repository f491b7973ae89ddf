"""Python as it is on macOS, as far as it goes: as sitecustomize, what Linux alone has is missing from all that starts.

https://docs.python.org/3/library/os.html and fcntl.html name the systems that each of these is available on.
"""

import ctypes
import fcntl
import os
import sys
import sysconfig
from types import ModuleType

sysconfig.get_config_vars()  # these are in a file that is called as the system
_proxies = ModuleType("_scproxy")
_proxies._get_proxies = dict  # type: ignore[attr-defined]
_proxies._get_proxy_settings = dict  # type: ignore[attr-defined]
sys.modules["_scproxy"] = _proxies

_OF_LINUX = {
    fcntl: ("F_OFD_GETLK", "F_OFD_SETLK", "F_OFD_SETLKW", "F_GETPIPE_SZ", "F_SETPIPE_SZ", "F_ADD_SEALS"),
    os: (
        *("O_DIRECT", "O_PATH", "O_TMPFILE", "ST_NOEXEC", "copy_file_range", "eventfd", "getxattr", "memfd_create"),
        *("pidfd_open", "pipe2", "posix_fadvise", "posix_fallocate", "sched_getaffinity", "setns", "splice", "unshare"),
    ),
}
_CALLS_OF_LINUX = {"mount", "pivot_root", "prctl", "setns", "umount2", "unshare"}
for _module, _names in _OF_LINUX.items():
    for _name in _names:
        vars(_module).pop(_name, None)

_function = ctypes.CDLL.__getattr__


def _known(library: ctypes.CDLL, name: str) -> object:
    if name in _CALLS_OF_LINUX:
        raise AttributeError(f"dlsym(RTLD_DEFAULT, {name}): symbol not found")
    return _function(library, name)


def _without_proc(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str) and arguments[0].startswith("/proc/"):
        raise FileNotFoundError(2, "No such file or directory", arguments[0])


ctypes.CDLL.__getattr__ = _known  # type: ignore[method-assign, assignment]
sys.addaudithook(_without_proc)
sys.platform = "darwin"
