#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A libvirtd of one's own, with the qemu and lxc drivers.

It runs in a process and a mount namespace of its own, so that everything it
starts ends with it, and sees a folder of ours in the places where libvirt
keeps its state.  Given a network namespace it runs there, and the taps and
veths of its guests appear there.

    with Libvirtd(directory, netns="balancer") as lv:
        subprocess.run(["virsh", "-c", lv.qemu, "list"])

It dies with the process that started it.  As a script:

    libvirtd.py DIR [NETNS]     prints the two URIs, serves until it is stopped
                                or its standard input ends; SIGUSR1 kills the
                                daemon, which comes back with its guests alive
"""
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
INNER = os.path.join(HERE, "libvirtd-inner.sh")
CLEANER = os.path.join(HERE, "libvirtd-clean.sh")
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent():
    """For preexec_fn: the child gets SIGKILL when its parent ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def netns_path(netns):
    """A name of /run/netns, a path, or a process id as a path to enter."""
    if isinstance(netns, int) or str(netns).isdigit():
        return f"/proc/{netns}/ns/net"
    return netns if "/" in netns else f"/run/netns/{netns}"


class Libvirtd:
    """directory: made if need be, and removed with all that is in it by stop().

    netns: name, path or pid of the network namespace; None: the caller's.
    kvm: leave /dev/kvm visible; None: as XLB_TEST_KVM=1 in the environment says.
    """

    def __init__(self, directory, netns=None, kvm=None):
        self.directory = os.path.abspath(directory)
        self.netns = netns
        self.kvm = os.environ.get("XLB_TEST_KVM") == "1" if kvm is None else kvm
        self.process = None
        self.cleaner = None
        socket = os.path.join(self.directory, "run/libvirt-sock")
        # A Unix socket's name has 107 bytes at most.
        if len(socket) > 107:
            raise ValueError(f"{socket}: too long for a socket")
        self.socket = socket
        self.qemu = f"qemu:///system?socket={socket}"
        self.lxc = f"lxc:///system?socket={socket}"
        self.log = os.path.join(self.directory, "log/libvirtd.log")

    def _write_configuration(self):
        for name in ("etc", "run", "lib", "cache", "log", "tmp"):
            os.makedirs(os.path.join(self.directory, name), exist_ok=True)
        etc = os.path.join(self.directory, "etc")
        for name in ("qemu", "nwfilter"):
            os.makedirs(os.path.join(etc, name), exist_ok=True)
        with open(os.path.join(etc, "libvirtd.conf"), "w") as f:
            f.write('auth_unix_rw = "none"\n'
                    'auth_unix_ro = "none"\n'
                    'unix_sock_rw_perms = "0700"\n'
                    f'log_outputs = "2:file:{self.log}"\n')
        with open(os.path.join(etc, "qemu.conf"), "w") as f:
            f.write('security_driver = "none"\n'
                    'user = "root"\n'
                    'group = "root"\n'
                    'dynamic_ownership = 0\n'
                    'remember_owner = 0\n'
                    'namespaces = [ ]\n'
                    'cgroup_controllers = [ ]\n'
                    'stdio_handler = "file"\n')
        with open(os.path.join(etc, "lxc.conf"), "w") as f:
            f.write('security_driver = "none"\n')

    def start(self, timeout=30):
        """Returns self, serving.  Raises RuntimeError with the log's end."""
        self._write_configuration()
        # It lives until the pipe's other end is closed: by stop(), or by the
        # death of this process.
        self.cleaner = subprocess.Popen(
            ["/bin/bash", CLEANER, self.directory], stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            self.spawn(timeout)
        except BaseException:
            self.stop()
            raise
        return self

    def spawn(self, timeout=30):
        """Starts it on the folder as it is: after kill(), a restart."""
        if os.path.exists(self.socket):
            os.unlink(self.socket)
        command = ["unshare", "--pid", "--mount", "--fork", "--kill-child",
                   "--propagation", "private",
                   "/bin/bash", INNER, self.directory, "1" if self.kvm else "0"]
        if self.netns is not None:
            command = ["nsenter", "--net=" + netns_path(self.netns)] + command
        with open(os.path.join(self.directory, "log/out"), "ab") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True, preexec_fn=die_with_parent)
        self._wait(timeout)

    def _wait(self, timeout):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            if os.path.exists(self.socket) and self._answers():
                return
            time.sleep(0.05)
        message = self.tail()
        self.kill()
        raise RuntimeError("libvirtd doesn't start:\n" + message)

    def _answers(self):
        return subprocess.run(["virsh", "-q", "-c", self.qemu, "uri"], start_new_session=True,
                              stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL).returncode == 0

    def tail(self, lines=20):
        text = ""
        for path in (os.path.join(self.directory, "log/out"), self.log):
            try:
                with open(path, errors="replace") as f:
                    text += "".join(f.readlines()[-lines:])
            except OSError:
                pass
        return text

    def daemon_pid(self):
        """libvirtd's process id as seen from here, or None."""
        todo = [self.process.pid] if self.process else []
        while todo:
            pid = todo.pop()
            try:
                with open(f"/proc/{pid}/comm") as f:
                    if f.read().strip() == "libvirtd":
                        return pid
                with open(f"/proc/{pid}/task/{pid}/children") as f:
                    todo += [int(x) for x in f.read().split()]
            except OSError:
                pass
        return None

    def kill_daemon(self):
        """Ends libvirtd only; its guests live on, and it is started again."""
        pid = self.daemon_pid()
        if pid:
            os.kill(pid, signal.SIGKILL)

    def kill(self):
        """Ends it and all its guests; the folder stays."""
        if self.process is None:
            return
        # unshare passes its own death on to the first process inside, and
        # with that one the kernel ends all others.
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self):
        self.kill()
        if self.cleaner is not None:
            self.cleaner.stdin.close()
            self.cleaner.wait()
            self.cleaner = None

    def virsh(self, *args, uri=None, check=True):
        """Standard output of a virsh command.

        In a session of its own: with a terminal it starts an agent for polkit,
        which complains there.
        """
        return subprocess.run(["virsh", "-q", "-c", uri or self.qemu, *args], start_new_session=True,
                              check=check, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, text=True).stdout

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: libvirtd.py DIR [NETNS]")
    stop = lambda *_: sys.exit(0)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    with Libvirtd(*sys.argv[1:]) as lv:
        signal.signal(signal.SIGUSR1, lambda *_: lv.kill_daemon())
        print(lv.qemu, lv.lxc, sep="\n", flush=True)
        while lv.process.poll() is None:
            if select.select([sys.stdin], [], [], 1)[0]:
                if not os.read(0, 4096):
                    break


if __name__ == "__main__":
    main()
