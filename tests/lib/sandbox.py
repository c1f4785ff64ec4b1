# SPDX-License-Identifier: GPL-2.0-or-later
"""A private pid and mount namespace around the calling script.

Everything that is started in it dies with it, however it ends: the kernel
kills what is left when the first process of a pid namespace goes, and that
one goes with the process outside (PDEATHSIG).  Mounts and unnamed network
namespaces have no other holder, so nothing of them stays either.
"""
import ctypes
import fcntl
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_NOSUID_NODEV_NOEXEC = 2 | 4 | 8
MS_BIND, MS_REC, MS_PRIVATE = 1 << 12, 1 << 14, 1 << 18
PR_SET_PDEATHSIG = 1
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result, what):
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return result


def unshare(flags):
    _check(_libc.unshare(flags), "unshare")


def setns(fd, kind):
    _check(_libc.setns(fd, kind), "setns")


def mount(source, target, kind=None, flags=0, data=None):
    words = [w and str(w).encode() for w in (source, target, kind)]
    _check(_libc.mount(*words, ctypes.c_ulong(flags), data and data.encode()),
           f"mount {target}")


def umount(target, lazy=False):
    _check(_libc.umount2(str(target).encode(), 2 if lazy else 0),
           f"umount {target}")


def die_with_parent(sig=signal.SIGKILL):
    _check(_libc.prctl(PR_SET_PDEATHSIG, int(sig)), "prctl")


def _pass_signals_to(pid):
    def forward(number, _frame):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
    for number in PASSED_ON:
        signal.signal(number, forward)


def _status(status):
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _exists(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def _be_janitor(get, cleanup):
    os.setsid()
    for number in PASSED_ON:
        signal.signal(number, signal.SIG_IGN)
    inside = int(os.read(get, 32) or 0)
    os.read(get, 1)  # until the last one that could write has ended
    while inside and _exists(inside):
        time.sleep(0.01)
    try:
        cleanup()
    finally:
        os._exit(0)


def _start_janitor(cleanup):
    """A process that outlives this one, however that ends, and runs cleanup()
    when all inside is gone.  Returns its pid and the pipe it waits on: for
    the pid of the first process inside, then for its end."""
    get, put = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(put)
        _be_janitor(get, cleanup)
    os.close(get)
    return pid, put


def _wait_outside(pid, janitor, pipe):
    _, status = os.waitpid(pid, 0)
    os.close(pipe)
    os.waitpid(janitor, 0)
    os._exit(_status(status))


def _be_init(pid):
    """First process of the namespace: reaps orphans, ends with `pid`."""
    _pass_signals_to(pid)
    while True:
        reaped, status = os.wait()
        if reaped == pid:
            os._exit(_status(status))


def enter(net=False, cleanup=None):
    """Go on as a new process inside; returns the first process's pid as it
    is seen from outside (for nsenter -t).  cleanup() is called outside when
    all inside is gone, also when this process is killed."""
    sys.stdout.flush()
    sys.stderr.flush()
    # Before the namespace is there, or it would die with it.
    janitor, pipe = _start_janitor(cleanup or (lambda: None))
    unshare(CLONE_NEWPID)
    get, put = os.pipe()
    pid = os.fork()
    if pid:
        _pass_signals_to(pid)
        os.close(get)
        os.write(pipe, str(pid).encode())
        os.write(put, str(pid).encode())
        os.close(put)
        _wait_outside(pid, janitor, pipe)
    os.close(pipe)
    die_with_parent()
    unshare(CLONE_NEWNS | (CLONE_NEWNET if net else 0))
    os.close(put)
    outer_pid = int(os.read(get, 32) or os._exit(1))
    os.close(get)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc", MS_NOSUID_NODEV_NOEXEC)
    pid = os.fork()
    if pid:
        _be_init(pid)
    return outer_pid


def remove_control_groups(name):
    """Removes the (empty) groups of that name and what is below them."""
    with open("/proc/self/mounts") as f:
        tops = [w[1] for w in (line.split() for line in f) if w[2].startswith("cgroup")]
    for top in tops:
        for folder, _, _ in os.walk(os.path.join(top, name), topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                pass  # not empty: it isn't ours alone


def _is_abandoned(path):
    """A folder of ours is locked as long as one of its processes lives."""
    try:
        if time.time() - path.stat().st_mtime < 10:
            return False  # perhaps not locked yet
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def scratch_folder(prefix, parent=None):
    """A new folder; also removes what killed runs of that prefix left."""
    parent = Path(parent or tempfile.gettempdir())
    for path in parent.glob(prefix + "*"):
        if _is_abandoned(path):
            shutil.rmtree(path, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=prefix, dir=parent)
    # Never closed: the lock goes with the last process that inherited it.
    fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)
    return folder


class Stopped(BaseException):
    """A signal asked this script to end; unwinds through every `finally`."""


def unwind_on_signals():
    """The first SIGTERM, SIGINT or SIGHUP raises Stopped, others are ignored
    (Ctrl-C reaches every process of the group, and is passed on as well)."""
    def stop(number, _frame):
        for other in PASSED_ON:
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(signal.Signals(number).name)
    for number in PASSED_ON:
        signal.signal(number, stop)
