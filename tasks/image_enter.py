"""Run one command inside an image: `python -IS image_enter.py CALLER ROOT COMMAND…`, as root of the build host.

CALLER is `PID:WATCHED:HELD`, two pipes of the process that called this (image_leash.py says what they are for).

Only the standard library, and nothing of the image, takes part until the command itself runs. It sees the image as `/`
in namespaces of its own, so that every path (absolute links and `..` as well) ends inside the image:

- its own mounts: the tree itself without device nodes and set-uid; a /proc of its own processes only; an empty /sys; a
  /dev of six harmless nodes; a /run and a /tmp that go with the command. The build host's root is not mounted at all;
- its own processes, which end with the command, or with the CALLER;
- no network, no System V IPC, and not the build host's name;
- of root's capabilities only those that change files: none that mounts, loads a module, makes a device or reboots, and
  none that opens a file by its handle, which needs no path and finds every file of the tree's file system;
- no call for the kernel's keys: root's keyrings (Kerberos tickets may lie there) have no namespace of this kind.

A hostile tree can thereby keep a command from running, and can lie in its answers; it cannot reach the build host.
It exits with the command's status, or with 120 and one line on standard error where the image could not be entered.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import stat
import struct
import sys

FAILED = 120
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Mounted over in the image's view. They have to be there: to make one would be a change of the tree.
PLACES = ("proc", "sys", "dev", "run", "tmp")
# capabilities(7): CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SYS_CHROOT, SETFCAP. Not
# DAC_READ_SEARCH: open_by_handle_at(2) needs it, and for paths DAC_OVERRIDE is enough.
KEPT_CAPABILITIES = frozenset({0, 1, 3, 4, 5, 6, 7, 18, 31})
# The numbers of add_key, request_key and keyctl by AUDIT_ARCH (linux/audit.h), each architecture's syscall table.
_GENERIC = (217, 218, 219)
KEY_CALLS = {
    0x40000003: (286, 287, 288),  # i386
    0xC000003E: (248, 249, 250, 0x400000F8, 0x400000F9, 0x400000FA),  # x86_64, and x32 on it
    0x40000028: (309, 310, 311),  # arm
    0xC00000B7: _GENERIC,  # aarch64
    0xC0000015: (269, 270, 271),  # ppc64le
    0x80000016: (278, 279, 280),  # s390x
    0xC00000F3: _GENERIC,  # riscv64
    0xC0000102: _GENERIC,  # loongarch64
}
# e_machine of elf(5), as `uname -m` names it.
MACHINES = {
    3: "i686",
    21: "ppc64le",
    22: "s390x",
    40: "armv7l",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
    258: "loongarch64",
}

_NEWNS, _NEWUTS, _NEWIPC, _NEWPID, _NEWNET = 0x20000, 0x4000000, 0x8000000, 0x20000000, 0x40000000
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
_DETACH, _NOFOLLOW = 2, 8
_PDEATHSIG, _CAPBSET_DROP, _NO_NEW_PRIVS, _CAP_AMBIENT, _CLEAR_ALL = 1, 24, 38, 47, 4
# linux/capability.h: the version of capget's header, and of two words each: effective, permitted, inheritable.
_CAPABILITIES_VERSION = 0x20080522
# linux/seccomp.h and linux/bpf_common.h: where struct seccomp_data has the call's number and the architecture.
_SECCOMP, _FILTER, _NUMBER, _ARCHITECTURE = 22, 2, 0, 4
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000

if sys.platform == "linux":  # a controller that is none imports this module, too
    _libc = ctypes.CDLL(None, use_errno=True)
    _libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
    _libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


class EnterError(Exception):
    """Why the image cannot be entered, for the operator."""


def main() -> int:
    """Enter the image and run the command there; its exit status."""
    caller, root, command = sys.argv[1], sys.argv[2], sys.argv[3:]
    sys.meta_path.clear()  # what Python would import from here on might be the image's
    leash = _tie(caller)
    woken = _wake_at_end()
    try:
        _call("unshare", _NEWNS | _NEWUTS | _NEWIPC | _NEWPID | _NEWNET)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        raise EnterError("namespaces and mounts need root (CAP_SYS_ADMIN): run pyinfra as root") from error
    child = os.fork()  # the first process of the new process namespace: with it all others end
    if child == 0:
        try:
            _call("prctl", _PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            machine = _enter(root)
            _give_up_privileges()
            _execute(command, machine)
        except EnterError as error:
            _say(str(error))
        except BaseException as error:
            _say(f"the image cannot be entered: {error}")
        finally:
            os._exit(FAILED)
    code = os.waitstatus_to_exitcode(_wait(child, leash, woken))
    return code if code >= 0 else 128 - code


def _tie(caller: str) -> int:
    """Hold the caller's one pipe to the end. Returns the other one, which hangs up where the caller ends."""
    pid, watched, held = caller.split(":")
    try:
        os.open(f"/proc/{pid}/fd/{held}", os.O_WRONLY | os.O_NONBLOCK)
        leash = os.open(f"/proc/{pid}/fd/{watched}", os.O_RDONLY | os.O_NONBLOCK)
        os.read(leash, 1)
    except BlockingIOError:  # nothing to read, but somebody who could write
        return leash
    except OSError:
        pass
    raise EnterError("the run that asked for this has ended")


def _wake_at_end() -> int:
    """A descriptor that is readable once a child has ended. (No thread: a new process namespace takes none.)"""
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return woken


def _wait(child: int, leash: int, woken: int) -> int:
    """The child's status. Where the caller has ended before it, it is killed, and all of its namespace with it."""
    events = select.poll()
    events.register(woken, select.POLLIN)
    events.register(leash, 0)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        if leash in dict(events.poll()):
            os.kill(child, signal.SIGKILL)
            events.unregister(leash)


def _enter(root: str) -> str:
    """Make the image this process's root, with nothing of the build host in sight. Returns the image's machine."""
    _mount(None, "/", None, _REC | _PRIVATE)
    _mount(root, root, None, _BIND | _REC)
    _tame_mounts(root)
    host = os.open("/", os.O_PATH | os.O_DIRECTORY)
    os.chdir(root)
    _call("pivot_root", b".", b".")
    # From here on "/" is the image, and the host lies under it, to be reached through `host` alone.
    for place in PLACES:
        mode = os.lstat(f"/{place}").st_mode if os.path.lexists(f"/{place}") else 0
        if not stat.S_ISDIR(mode):
            what = "a link" if stat.S_ISLNK(mode) else "not a directory" if mode else "missing"
            raise EnterError(f"this is no root file system: its /{place} is {what}, expected a directory")
    _mount_places(host)
    os.fchdir(host)
    _call("umount2", b".", _DETACH)
    os.close(host)
    os.chdir("/")
    _call("sethostname", b"image", 5)
    return _machine()


def _tame_mounts(root: str) -> None:
    """No device nodes and no set-uid anywhere in the tree; what a builder mounted in our places goes, in this view."""
    places = tuple(os.path.join(root, place) for place in PLACES)
    for point in reversed(_mount_points(root)):
        if any(point == place or point.startswith(f"{place}/") for place in places):
            _call("umount2", os.fsencode(point), _DETACH | _NOFOLLOW)
    for point in _mount_points(root):
        flags = os.statvfs(point).f_flag & (_RDONLY | _NOEXEC)
        _mount(None, point, None, _BIND | _REMOUNT | _NODEV | _NOSUID | flags)


def _mount_points(root: str) -> list[str]:
    """The topmost mount at `root` and those on it, parents first. What lies below it is listed, but out of reach."""
    points, parents = {}, {}
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            number, parent, _, _, point = line.split()[:5]
            points[number], parents[number] = os.fsdecode(unescaped(point)), parent
    found = [[number for number, point in points.items() if point == root][-1]]
    for number in found:
        found += [child for child, parent in parents.items() if parent == number and child != number]
    return [points[number] for number in found]


def unescaped(field: bytes) -> bytes:
    """As proc(5) has it: a blank, a tab, a newline and a backslash are three octal digits."""
    first, *rest = field.split(b"\\")
    return first + b"".join(bytes([int(each[:3], 8)]) + each[3:] for each in rest)


def _mount_places(host: int) -> None:
    restricted = _NOSUID | _NODEV | _NOEXEC
    try:  # only processes: no sysctl, module or file system of the build host is even visible
        _mount("proc", "/proc", "proc", restricted | _RDONLY, "subset=pid")
    except OSError:  # before Linux 5.8
        _mount("proc", "/proc", "proc", restricted | _RDONLY)
    _mount("none", "/sys", "tmpfs", restricted | _RDONLY, "size=4k,mode=755")
    _mount("none", "/run", "tmpfs", restricted, "mode=755")
    _mount("none", "/tmp", "tmpfs", _NOSUID | _NODEV, "mode=1777")
    _mount("none", "/dev", "tmpfs", _NOSUID | _NOEXEC, "size=64k,mode=755")
    os.umask(0)
    os.mkdir("/run/lock", 0o1777)
    for name, target in (("fd", "self/fd"), ("stdin", "self/fd/0"), ("stdout", "self/fd/1"), ("stderr", "self/fd/2")):
        os.symlink(f"/proc/{target}", f"/dev/{name}")
    os.fchdir(host)
    for name in ("null", "zero", "full", "random", "urandom"):
        os.close(os.open(f"/dev/{name}", os.O_CREAT | os.O_EXCL, 0o666))
        _mount(f"dev/{name}", f"/dev/{name}", None, _BIND)
        # It is the build host's own node: to be used, and not to be given another mode.
        _mount(None, f"/dev/{name}", None, _BIND | _REMOUNT | _RDONLY | _NOSUID | _NOEXEC)
    os.umask(0o022)


def _machine() -> str:
    """What the image's own shell is compiled for: `uname` would tell of the build host."""
    try:
        with open("/bin/sh", "rb") as file:
            header = file.read(20)
    except OSError as error:
        raise EnterError(f"this is no root file system: its /bin/sh cannot be read ({error.strerror})") from error
    if header[:4] != b"\x7fELF":
        raise EnterError("this is no root file system: its /bin/sh is no program")
    number = int.from_bytes(header[18:20], "little" if header[5] == 1 else "big")
    return MACHINES.get(number, f"machine-{number}")


def _give_up_privileges() -> None:
    os.setsid()
    for capability in range(64):
        if capability not in KEPT_CAPABILITIES and _libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0):
            if ctypes.get_errno() != errno.EINVAL:
                raise _error("drop a capability")
            break  # this kernel knows no more of them
    _forget_inherited()
    _call("prctl", _NO_NEW_PRIVS, 1, 0, 0, 0)
    _forbid_key_calls()


def _forget_inherited() -> None:
    """What the caller lets others inherit: root's programs get it beyond the bounding set (capabilities(7))."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITIES_VERSION, 0))
    sets = ctypes.create_string_buffer(24)
    _call("capget", header, sets)
    effective, permitted, _, effective_high, permitted_high, _ = struct.unpack("=6I", sets.raw)
    sets.raw = struct.pack("=6I", effective, permitted, 0, effective_high, permitted_high, 0)
    _call("capset", header, sets)
    _call("prctl", _CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)


def _forbid_key_calls() -> None:
    """A filter of seccomp(2): these calls end as on a kernel without keys, of an unknown architecture every one."""
    program = [_instruction(_LOAD, _ARCHITECTURE)]
    for architecture, numbers in KEY_CALLS.items():
        ours = [_instruction(_LOAD, _NUMBER)]
        ours += [_instruction(_JUMP_IF_EQUAL, call, len(numbers) - at) for at, call in enumerate(numbers)]
        ours += [_instruction(_RETURN, _ALLOW), _instruction(_RETURN, _FAIL | errno.ENOSYS)]
        program += [_instruction(_JUMP_IF_EQUAL, architecture, 0, len(ours)), *ours]
    program.append(_instruction(_RETURN, _FAIL | errno.ENOSYS))
    code = ctypes.create_string_buffer(b"".join(program))
    _call("prctl", _SECCOMP, _FILTER, ctypes.addressof(_Program(len(program), ctypes.addressof(code))), 0, 0)


def _instruction(code: int, value: int, when_true: int = 0, when_false: int = 0) -> bytes:
    """struct sock_filter: the jumps say how many instructions are left out."""
    return struct.pack("=HBBI", code, when_true, when_false, value)


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def _execute(command: list[str], machine: str) -> None:
    environment = {
        "PATH": PATH,
        "HOME": "/root",
        "LC_ALL": "C",
        "DEBIAN_FRONTEND": "noninteractive",
        "SYSTEMD_OFFLINE": "1",
        "USERNS_NODE_IMAGE": machine,
    }
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        environment["SOURCE_DATE_EPOCH"] = epoch
    program = command[0]
    if "/" not in program:
        places = (f"{directory}/{program}" for directory in PATH.split(":"))
        program = next((place for place in places if os.access(place, os.X_OK)), program)
    try:
        os.execve(program, command, environment)
    except OSError as error:
        here = os.uname().machine
        if error.errno == errno.ENOEXEC or (error.errno == errno.ENOENT and machine != here):
            raise EnterError(
                f"the image is for {machine}, and this machine ({here}) cannot run its programs: install "
                "qemu-user-static with its binfmt entry (flag F), or bake on such a machine"
            ) from error
        raise EnterError(f"the image's {command[0]} cannot be run: {error.strerror}") from error


def _mount(source: str | None, target: str, type: str | None, flags: int, data: str | None = None) -> None:
    words = [os.fsencode(each) if each is not None else None for each in (source, target, type, data)]
    if _libc.mount(words[0], words[1], words[2], flags, words[3]):
        raise _error(f"mount {target}")


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments):
        raise _error(name)


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (EnterError, OSError) as error:
        _say(str(error))
        sys.exit(FAILED)
