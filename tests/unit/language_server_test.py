#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What an editor makes of schemas/services.schema.json: the YAML language
server, driven as editors drive it, marks mistakes, completes keys and words
and explains them.  tools/deps.sh puts it under build/."""
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "lib"))
import tap  # noqa: E402

SERVER = ROOT / "build/yaml-language-server/node_modules/yaml-language-server/bin/yaml-language-server"
PATIENCE = 60  # seconds, on a machine that is busy
MODELINE = "# yaml-language-server: $schema=../../schemas/services.schema.json\n"
GOOD = MODELINE + """version: 1
node: {interfaces: [eth0]}
services:
  - name: web
    vips: [192.0.2.10]
    ports: [80]
    algorithm: maglev
    backends:
      - {name: a, address: 10.77.0.5}
"""


class Editor:
    """One end of the protocol: messages with a Content-Length on pipes."""

    def __init__(self):
        self.process = subprocess.Popen(["node", SERVER, "--stdio"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        env=dict(os.environ, NODE_OPTIONS=""))
        self.id, self.versions, self.pending = 0, {}, b""
        self.ask("initialize", {
            "processId": os.getpid(), "rootUri": ROOT.as_uri(),
            "capabilities": {"textDocument": {"completion": {"completionItem": {
                "snippetSupport": False}}, "publishDiagnostics": {}, "hover": {}}}})
        self.tell("initialized", {})
        self.tell("workspace/didChangeConfiguration", {"settings": {"yaml": {
            "validate": True, "hover": True, "completion": True, "schemaStore": {"enable": False}}}})

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def send(self, message):
        text = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(text) + text)
        self.process.stdin.flush()

    def tell(self, method, params):
        self.send({"method": method, "params": params})

    def whole(self):
        """The first message that is there, or None."""
        head, found, rest = self.pending.partition(b"\r\n\r\n")
        if not found:
            return None
        length = int(head.split(b"Content-Length:")[1].split(b"\r\n")[0])
        if len(rest) < length:
            return None
        self.pending = rest[length:]
        return json.loads(rest[:length])

    def receive(self):
        """The next message; what it asks of an editor is answered with nothing."""
        until = time.monotonic() + PATIENCE
        while (message := self.whole()) is None:
            ready, _, _ = select.select([self.process.stdout], [], [], until - time.monotonic())
            assert ready, "no answer from the language server"
            more = os.read(self.process.stdout.fileno(), 65536)
            assert more, f"the language server ended with {self.process.wait()}"
            self.pending += more
        if "id" in message and "method" in message:
            items = message.get("params", {}).get("items", [])
            self.send({"id": message["id"], "result": [None] * len(items) or None})
        return message

    def ask(self, method, params):
        self.id += 1
        self.send({"id": self.id, "method": method, "params": params})
        while True:
            message = self.receive()
            if message.get("id") == self.id and "method" not in message:
                assert "error" not in message, message
                return message["result"]

    def open(self, name, text):
        """An unsaved file in a folder of examples; returns its messages."""
        uri = (ROOT / "examples" / "minimal" / name).as_uri()
        self.tell("textDocument/didOpen", {"textDocument": {
            "uri": uri, "languageId": "yaml", "version": 1, "text": text}})
        while True:
            message = self.receive()
            if message.get("method") == "textDocument/publishDiagnostics" \
                    and message["params"]["uri"] == uri:
                return uri, message["params"]["diagnostics"]

    def at(self, method, uri, text, marker):
        """Asks about the place right behind the marker."""
        before = text[:text.index(marker) + len(marker)]
        return self.ask(method, {"textDocument": {"uri": uri}, "position": {
            "line": before.count("\n"), "character": len(before) - before.rfind("\n") - 1}})


def lines_of(diagnostics):
    return {d["range"]["start"]["line"]: d["message"] for d in diagnostics}


@tap.test
def good_files(editor):
    """nothing is said about a good file, nor about the examples"""
    assert editor.open("good.yaml", GOOD)[1] == []
    for path in sorted((ROOT / "examples").glob("*/services.yaml")):
        text = path.read_text()
        assert text.startswith("# yaml-language-server: $schema="), f"{path}: no modeline"
        assert editor.open("../" + path.parent.name + "/services.yaml", text)[1] == [], path


@tap.test
def mistakes(editor):
    """wrong keys, words, numbers and lists are marked where they stand"""
    text = GOOD.replace("ports:", "prots:").replace("maglev", "magelv").replace("[192.0.2.10]", "192.0.2.10")
    found = lines_of(editor.open("bad.yaml", text)[1])
    line = {word: text[:text.index(word)].count("\n") for word in ("prots", "magelv", "vips", "name: web")}
    assert "prots" in found[line["prots"]], found
    assert "maglev" in found[line["magelv"]], found
    assert "array" in found[line["vips"]], found
    assert "ports" in found[line["name: web"]], found
    assert len(found) == 4, found


@tap.test
def not_supported(editor):
    """what the contract names but isn't there yet is marked, too"""
    text = GOOD.replace("algorithm: maglev", "algorithm: free_slots")
    found = lines_of(editor.open("later.yaml", text)[1])
    assert list(found) == [text[:text.index("free_slots")].count("\n")], found


@tap.test
def words(editor):
    """the words of a key are offered"""
    text = GOOD.replace("algorithm: maglev", "algorithm: ")
    uri, _ = editor.open("words.yaml", text)
    answer = editor.at("textDocument/completion", uri, text, "algorithm: ")
    labels = {item["label"] for item in answer["items"]}
    assert {"maglev", "round_robin", "least_connections"} <= labels, labels
    assert "free_slots" not in labels, labels


@tap.test
def keys(editor):
    """the keys of a service are offered, without those that it has"""
    text = GOOD.replace("    backends:", "    \n    backends:")
    uri, _ = editor.open("keys.yaml", text)
    answer = editor.at("textDocument/completion", uri, text, "maglev\n    ")
    labels = {item["label"] for item in answer["items"]}
    assert {"forwarding", "health", "drain"} <= labels, labels
    assert not {"name", "vips", "min"} & labels, labels


@tap.test
def hover(editor):
    """a key is explained, with its range"""
    text = GOOD.replace("algorithm:", "drain: 10s\n    algorithm:")
    uri, _ = editor.open("hover.yaml", text)
    answer = editor.at("textDocument/hover", uri, text, "    drai")
    said = answer["contents"]["value"]
    assert "leaving" in said and "0s to 1d" in said, said


def main():
    if not shutil.which("node"):
        tap.skip_all("no node here to run the YAML language server")
    if not SERVER.exists():
        tap.skip_all("the YAML language server isn't installed: tools/deps.sh does it where npm is")
    editor = Editor()
    try:
        return tap.run(editor)
    finally:
        editor.close()


sys.exit(main())
