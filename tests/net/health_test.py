#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Every kind of probe against real servers, passing and failing for each
reason; states stored with it; the sorry backend and the panic policies."""
import sys
from pathlib import Path

import netlab
import lab
import tap
from lab import wait_for

lab.enter()
HERE = Path(__file__).resolve().parent
PACE = "interval: 300ms, timeout: 250ms, rise: 2, fall: 2"
SLOW = "interval: 1s, timeout: 1s, rise: 2, fall: 2"  # TLS in Python takes its time
HEADER = ("version: 1\nnode: {interfaces: [uplink], resync: 2s}\n"
          "safety: {max_service_removals: 100%}\nservices:\n")

# Service: (backend, what `health` says, state, reason once it has settled).
# dsr, so that many services may have one backend.
PROBES = {
    "tcp": ("b1", "type: tcp, port: 80", "up", None),
    "tcp-closed": ("b1", "type: tcp, port: 81", "joining", "refused"),
    "http": ("b1", "type: http, path: /healthz, port: 80", "up", None),
    "http-status": ("b1", "type: http, path: /healthz, port: 80, expect: [204]", "joining",
                    "bad_status: 200"),
    "https": ("b1", "type: https, port: 443, host: web.example, verify: FOLDER/ca.pem", "up", None),
    "https-any": ("b1", "type: https, port: 8444", "up", None),
    "https-name": ("b1", "type: https, port: 443, host: other.example, verify: FOLDER/ca.pem",
                   "joining", "bad_certificate"),
    "https-self": ("b1", "type: https, port: 8444, host: web.example, verify: true", "joining",
                   "bad_certificate"),
    "https-status": ("b1", "type: https, port: 443, path: /none", "joining", "bad_status: 404"),
    "https-plain": ("b1", "type: https, port: 8446", "joining", "tls_error"),
    "https-mute": ("b1", "type: https, port: 8445", "joining", "timeout"),
    "https-closed": ("b1", "type: https, port: 81", "joining", "refused"),
    "https-no-ca": ("b1", "type: https, port: 443, verify: FOLDER/none.pem", "joining",
                    "local_error"),
    "dns": ("b1", "type: dns, name: www.example, port: 53, expect: [192.0.2.77]", "up", None),
    "dns-code": ("b1", "type: dns, name: www.example, port: 53, expect: [NXDOMAIN]", "joining",
                 "bad_status: NOERROR"),
    "dns-closed": ("b1", "type: dns, name: www.example, port: 54", "joining", "refused"),
    "udp": ("b1", 'type: udp, send: ping, expect: [pong], port: 9001', "up", None),
    "udp-hex": ("b1", 'type: udp, send: "hex:0070696e6700", expect: ["hex:00706f6e6700"],'
                ' port: 9001', "up", None),
    "icmp": ("b1", "type: icmp", "up", None),
    "icmp-nobody": ("nobody", "type: icmp", "joining", ("timeout", "unreachable")),
    "command": ("b1", "type: command, command: [FOLDER/check, \"0\"], port: 8081", "up", None),
    "command-fails": ("b1", "type: command, command: [FOLDER/check, \"3\"], port: 8081", "joining",
                      "failed: command-fails b1 10.77.0.11 8081 is not well"),
    "command-slow": ("b1", "type: command, command: [/bin/sleep, \"600\"]", "joining", "timeout"),
    "command-none": ("b1", "type: command, command: [/nowhere/check]", "joining", "local_error"),
}
CHECK = """#!/bin/sh
echo "asked for $XLB_BACKEND"
echo "$XLB_SERVICE $XLB_BACKEND $XLB_ADDRESS $XLB_PORT is not well"
exit "$1"
"""


def certificates(folder):
    def openssl(*words):
        lab.subprocess.run(["openssl", *words], check=True, cwd=folder,
                           stdout=lab.subprocess.DEVNULL, stderr=lab.subprocess.DEVNULL)

    for name in ("ca", "web", "self"):
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")
    for name in ("ca", "self"):
        openssl("req", "-x509", "-new", "-key", f"{name}.key", "-days", "2", "-subj",
                f"/CN={name}", "-addext", "subjectAltName=DNS:web.example", "-out", f"{name}.pem")
    openssl("req", "-new", "-key", "web.key", "-subj", "/CN=web", "-out", "web.csr")
    (folder / "ext").write_text("subjectAltName=DNS:web.example\n")
    openssl("x509", "-req", "-in", "web.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2",
            "-CAcreateserial", "-extfile", "ext", "-out", "web.pem")
    for name in ("web", "self"):
        with open(folder / f"{name}.pem", "a", encoding="ascii") as out:
            out.write((folder / f"{name}.key").read_text())


class World:
    def __init__(self):
        self.lab = lab.Lab()
        self.folder = self.lab.scratch / "probes"
        self.folder.mkdir()
        certificates(self.folder)
        (self.folder / "check").write_text(CHECK)
        (self.folder / "check").chmod(0o755)
        self.mode()
        self.b1 = self.lab.add_backend("b1")
        netlab.serve(self.b1)
        server = self.b1.ns.start([sys.executable, HERE / "probe_server.py", self.folder], "probed")
        self.server_log = server.log
        wait_for(lambda: "ready" in server.log.read_text(), "the servers")
        self.xlb = self.lab.reconciler(self.text()).start()

    def mode(self, *words):
        new = self.folder / "mode.new"
        new.write_text(" ".join(words))
        new.rename(self.folder / "mode")

    def text(self):
        out = [HEADER]
        for i, (name, (backend, health, _, _)) in enumerate(PROBES.items()):
            address = self.b1.addr4 if backend == "b1" else "10.77.0.250"
            out.append(f"  - {{name: {name}, vips: [192.0.2.{20 + i}], ports: [80],"
                       " forwarding: dsr, health: {"
                       f"{health}, {SLOW if name.startswith('https') else PACE}}},"
                       f" backends: [{{name: {backend}, address: {address}}}]}}\n")
        return "".join(out).replace("FOLDER", str(self.folder))

    def backend(self, service):
        status = self.xlb.status()
        for s in status["services"] if status else ():
            if s["name"] == service:
                return s["backends"][0]
        return {}

    def is_seen(self, service, state, reason):
        seen = self.backend(service)
        said = seen.get("reason", "")
        if isinstance(reason, tuple):
            fits = said.startswith(reason)
        else:
            fits = said.startswith(reason) if reason else not said
        return seen.get("state") == state and fits

    def wait_seen(self, service, state, reason):
        try:
            wait_for(lambda: self.xlb.alive() and self.is_seen(service, state, reason),
                     f"{service} to be {state}, {reason}", 30, 0.1)
        except lab.Timeout as why:
            raise AssertionError(f"{why}: {self.backend(service)}") from None

    def history(self, service):
        return [(row["from_state"], row["to_state"], row["reason"]) for row in self.xlb.query(
            "SELECT * FROM health_history WHERE service = ? ORDER BY time_ms, rowid", service)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lab.close()

    def print_logs(self):
        self.lab.print_logs()


@tap.test
def every_kind(w):
    """every kind of probe passes, and fails for each reason"""
    for service, (_, _, state, reason) in PROBES.items():
        w.wait_seen(service, state, reason)
    log = w.server_log.read_text()
    assert "served web.example web.example" in log, "no SNI, or no Host"
    assert "served None 10.77.0.11:8444" in log, "a name for an address"
    probes = w.xlb.status()["probes"]
    for result in ("pass", "timeout", "refused", "bad_status", "bad_certificate", "tls_error",
                   "failed", "local_error"):
        assert probes["results"][result] > 0, probes
    assert probes["targets"] == len(PROBES), probes
    said = w.xlb.verb("check").stderr
    for what in (f"verify {w.folder}/none.pem of service \"https-no-ca\" can't be read here",
                 "command /nowhere/check of service \"command-none\" can't be run here"):
        assert what in said, said


@tap.test
def answers_go_wrong(w):
    """answers go wrong and right again: each is found, stored with its reason"""
    for mode, service, reason, detail in (
            ("dns=servfail", "dns", "bad_status", "bad_status: SERVFAIL"),
            ("dns=other", "dns", "bad_answer", "bad_answer: none of the expected"),
            ("dns=garbage", "dns", "timeout", "timeout"),
            ("dns=silent", "dns", "timeout", "timeout"),
            ("udp=other", "udp", "bad_answer", "bad_answer"),
            ("udp=silent", "udp", "timeout", "timeout"),
            ("https=503", "https", "bad_status", "bad_status: 503")):
        w.mode(mode)
        w.wait_seen(service, "down", detail)
        w.mode()
        w.wait_seen(service, "up", None)
        assert w.history(service)[-2:] == [("up", "down", reason), ("down", "up", "pass")], \
            f"{mode}: {w.history(service)}"
    row = w.xlb.query("SELECT probe_ms FROM health_history WHERE service = 'udp' "
                      "AND reason = 'timeout' LIMIT 1")[0]
    assert row["probe_ms"] >= 250, row


@tap.test
def refusing_is_dead(w):
    """whose port refuses is dead, and comes back"""
    w.b1.server.kill()
    w.b1.server.wait()
    w.wait_seen("http", "dead", "refused")
    netlab.serve(w.b1)
    w.wait_seen("http", "up", None)
    dead, up = w.history("http")[-2:]
    assert dead[1:] == ("dead", "refused") and up == ("dead", "up", "pass"), w.history("http")


@tap.test
def commands_leave_nothing(w):
    """programs of probes end with the daemon"""
    found = lab.subprocess.run(["pgrep", "-fx", "/bin/sleep 600"], check=False,
                               stdout=lab.subprocess.PIPE).stdout.split()
    assert len(found) <= 1, found
    assert w.xlb.stop() == 0
    wait_for(lambda: lab.subprocess.run(["pgrep", "-fx", "/bin/sleep 600"], check=False,
                                        stdout=lab.subprocess.DEVNULL).returncode == 1,
             "the last program to end")


def panic_text(w, panic="", backends="both", sorry=True):
    entries = "".join(f"      - {{name: {b.name}, address: {b.addr4}}}\n"
                      for b in w.lab.backends[1:3] if backends == "both" or b.name == backends)
    return (HEADER + "  - name: web\n    vips: [192.0.2.10]\n    ports: [80]\n    drain: 2s\n"
            f"    health: {{type: http, path: /healthz, {PACE}{panic}}}\n"
            + f"    backends:\n{entries}"
            + (f"    sorry: {{address: {w.lab.backends[3].addr4}}}\n" if sorry else ""))


def who(w):
    return w.lab.client.curl("http://192.0.2.10/", check=False, timeout=2).strip()


def wait_who(w, names):
    wait_for(lambda: w.xlb.alive() and who(w) in names, f"one of {names} to answer", 30)


def start_server(backend):
    sick = backend.ns.path.with_suffix(".sick")
    backend.sick = sick
    backend.server = backend.ns.start(
        [netlab.BACKEND, "-n", backend.name, "-p", "80", "-u", "9000", "-f", sick],
        log=f"server-{backend.name}")


def services_of(w):
    status = w.xlb.status()
    return {s["name"]: s for s in status["services"]} if status else {}


def wait_all_up(w):
    wait_for(lambda: w.xlb.alive() and services_of(w)["web"]["state"] == "ok", "both to be up", 30)
    wait_who(w, ("w1", "w2"))


def sorry_state(w):
    web = services_of(w).get("web", {"backends": []})
    return next((b["state"] for b in web["backends"] if b["name"] == "sorry"), None)


@tap.test
def sorry_steps_in(w):
    """the sorry backend serves when nobody else can, and only then"""
    for name in ("w1", "w2", "sorry-page"):
        start_server(w.lab.add_backend(name))
    w.xlb = w.lab.reconciler(panic_text(w)).start()
    w.xlb.wait_converged()
    w1, w2 = w.lab.backends[1:3]
    for _ in range(20):
        assert who(w) in ("w1", "w2")
    wait_for(lambda: sorry_state(w) == "standby", "the sorry to stand by")
    w1.sick.touch()
    w2.sick.touch()
    wait_who(w, ("sorry-page",))
    wait_for(lambda: sorry_state(w) == "serving", "status to say so")
    web = services_of(w)["web"]
    assert (web["state"], web["up"], web["active"]) == ("down", 0, 2), web
    text = w.xlb.verb("status").stdout
    assert "bad_status: 503" in text and "serving" in text, text
    w1.sick.unlink()
    wait_who(w, ("w1",))
    w2.sick.unlink()
    wait_who(w, ("w2",))
    wait_for(lambda: sorry_state(w) == "standby", "the sorry to stand by again")
    w.xlb.wait_converged()


@tap.test
def open_before_sorry(w):
    """with fail_open those that fail go on; the sorry comes when they are dead"""
    w1, w2 = w.lab.backends[1:3]
    w.xlb.apply(panic_text(w, ", panic: fail_open"))
    w1.sick.touch()
    w2.sick.touch()
    wait_for(lambda: services_of(w)["web"]["up"] == 0, "both to be down", 30)
    for _ in range(10):
        assert who(w) in ("w1", "w2")
    for b in (w1, w2):
        b.server.kill()
        b.server.wait()
    wait_who(w, ("sorry-page",))
    for b in (w1, w2):
        b.sick.unlink()
        start_server(b)
    wait_who(w, ("w1",))
    wait_who(w, ("w2",))
    wait_all_up(w)


@tap.test
def closed_without_sorry(w):
    """with fail_closed and no sorry nobody answers, and then they do again"""
    w1, w2 = w.lab.backends[1:3]
    w.xlb.apply(panic_text(w, ", panic: fail_closed", sorry=False))
    w1.sick.touch()
    w2.sick.touch()
    wait_for(lambda: services_of(w)["web"]["up"] == 0 and who(w) == "", "nobody to answer", 30)
    w1.sick.unlink()
    w2.sick.unlink()
    wait_all_up(w)


@tap.test
def sorry_removed_while_it_serves(w):
    """a sorry that is taken out of the file while it serves drains"""
    w1, w2 = w.lab.backends[1:3]
    w.xlb.apply(panic_text(w))
    w1.sick.touch()
    w2.sick.touch()
    wait_who(w, ("sorry-page",))
    w.xlb.write(panic_text(w, sorry=False))
    wait_for(lambda: sorry_state(w) is None, "the sorry to be gone", 30)
    w1.sick.unlink()
    w2.sick.unlink()
    wait_all_up(w)
    w.xlb.wait_converged()


@tap.test
def joins_after_its_first_pass(w):
    """a new backend gets nothing before its first pass, then its share"""
    late = w.lab.add_backend("late")
    text = panic_text(w)
    w.xlb.apply(text)
    w.xlb.write(text.replace("    sorry", f"      - {{name: late, address: {late.addr4}}}\n    sorry"))
    wait_for(lambda: any(b["name"] == "late" and b["state"] == "joining"
                         for b in services_of(w)["web"]["backends"]), "it to be joining")
    for _ in range(40):
        assert who(w) in ("w1", "w2")
    start_server(late)
    wait_who(w, ("late",))
    rows = w.xlb.query("SELECT * FROM health_history WHERE backend = 'late'")
    assert [(r["from_state"], r["to_state"], r["reason"]) for r in rows] == \
        [("joining", "up", "pass")], rows


@tap.test
def resolves_before_it_joins(w):
    """udp without a probe: in rotation once its neighbour resolves, not before"""
    ghost = "10.77.0.99"
    w.xlb.write(HEADER + "  - name: echo\n    vips: [192.0.2.11]\n    protocol: udp\n"
                f"    ports: [9000]\n    backends: [{{name: ghost, address: {ghost}}}]\n")
    wait_for(lambda: "echo" in services_of(w), "the service")

    def packets():
        w.lab.client.run([netlab.LOAD, "--mode", "udp", "--to", "192.0.2.11:9000", "--rate", "20",
                          "--duration", "0.3"], check=False)
        return services_of(w)["echo"]["backends"][0]["packets"]

    assert packets() == 0
    w.lab.backends[1].ns.ip(f"address add {ghost}/24 dev eth0")
    wait_for(lambda: packets() > 0, "packets to reach it", 30, 0.2)


lab.main(World)
