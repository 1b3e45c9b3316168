"""A small MCP server over stdio that tells what it was given: run as a script, without anything installed."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus


class Failed(Exception):
    """Becomes a JSON-RPC error with its text."""


_lock = threading.Lock()
_cancelled: set[Any] = set()


def say(message: dict[str, Any]) -> None:
    with _lock:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def text(value: object) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": value if isinstance(value, str) else json.dumps(value)}]}


def slow(request: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any] | None:
    token = (request["params"].get("_meta") or {}).get("progressToken")
    steps = int(arguments.get("steps", 10))
    for step in range(steps):
        if request["id"] in _cancelled:
            Path(arguments["marker"]).touch()
            return None
        if token is not None:
            params = {"progressToken": token, "progress": step + 1, "total": steps}
            say({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
        time.sleep(float(arguments.get("pause", 0.05)))
    return text("done")


def child(_: dict[str, Any], __: dict[str, Any]) -> dict[str, Any]:
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    return text(str(started.pid))


def chatter(_: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    sys.stderr.write("x" * int(arguments["size"]))
    sys.stderr.flush()
    sys.stdout.write("this is not a message\n")
    return text("ok")


def given(_: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """What a variable holds, or the file that it names: length and digest, which nobody redacts."""
    value = os.environb[arguments["name"].encode()]
    if arguments.get("file"):
        path = Path(os.fsdecode(value))
        return text(
            f"{described(path.read_bytes())} {path.stat().st_mode & 0o777:o} {path.parent.stat().st_mode & 0o777:o}"
        )
    return text(described(value))


def described(value: bytes) -> str:
    return f"{len(value)} {hashlib.sha256(value).hexdigest()}"


ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64 within": lambda value: base64.b64encode(b"x" + value.encode() + b"y").decode(),
    "base64url": lambda value: base64.urlsafe_b64encode(value.encode()).decode(),
    "hex": lambda value: value.encode().hex(),
    "HEX": lambda value: value.encode().hex().upper(),
    "url": lambda value: quote(value, safe=""),
    "form": quote_plus,
    "json": json.dumps,
}


def echo(_: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """A careless server: its whole environment, in some encoding, in a result, an error or on stderr."""
    said = "\n".join(f"{name}={ENCODINGS[arguments['as']](value)}" for name, value in os.environ.items())
    match arguments["where"]:
        case "result":
            return text(said)
        case "structure":
            return {**text("see there"), "structuredContent": {"environment": dict(os.environ), "said": [said]}}
        case "tool error":
            return {"isError": True, **text(f"failed with {said}")}
        case "error":
            raise Failed(said)
        case _:
            # In small pieces: what reads it gets the value cut in the middle.
            for at in range(0, len(said), 7):
                os.write(2, said[at : at + 7].encode())
            return text("said on stderr")


TOOLS: dict[str, Callable[[dict[str, Any], dict[str, Any]], dict[str, Any] | None]] = {
    "environment": lambda _, __: text({name: value[::-1] for name, value in os.environ.items()}),
    "echo": echo,
    "given": given,
    "repeat": lambda _, arguments: text(arguments["text"]),
    "pid": lambda _, __: text(str(os.getpid())),
    "directory": lambda _, __: text(str(Path.cwd())),
    "arguments": lambda _, __: text(sys.argv),
    "meta": lambda request, _: text(request["params"].get("_meta")),
    "slow": slow,
    "crash": lambda _, __: os._exit(3),
    "child": child,
    "chatter": chatter,
    "garbage": lambda _, __: {"content": "not a list"},
    "long": lambda _, arguments: text("y" * int(arguments["size"])),
}


def call(request: dict[str, Any]) -> dict[str, Any] | None:
    tool = TOOLS.get(request["params"]["name"])
    if tool is None:
        return {"isError": True, **text("no such tool")}
    return tool(request, request["params"].get("arguments") or {})


METHODS: dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]] = {
    "initialize": lambda request: {
        "protocolVersion": request["params"]["protocolVersion"],
        "capabilities": {"tools": {"listChanged": True}, "prompts": {}},
        "serverInfo": {"name": "teller", "version": "7"},
        "instructions": "Ask what you were given.",
    },
    "ping": lambda _: {},
    "tools/list": lambda _: {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]},
    "tools/call": call,
    "prompts/list": lambda _: {"prompts": [{"name": "greet"}]},
    "prompts/get": lambda _: {"messages": [{"role": "user", "content": {"type": "text", "text": "hello"}}]},
}


def serve(request: dict[str, Any]) -> None:
    method = METHODS.get(request["method"])
    if method is None:
        error = {"code": -32601, "message": "Method not found"}
        say({"jsonrpc": "2.0", "id": request["id"], "error": error})
        return
    try:
        result = method(request)
    except Failed as failed:
        error = {"code": -32000, "message": f"failed: {failed}", "data": {"environment": dict(os.environ)}}
        say({"jsonrpc": "2.0", "id": request["id"], "error": error})
        return
    if result is not None:
        say({"jsonrpc": "2.0", "id": request["id"], "result": result})


def main() -> None:
    if "--stubborn" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "--mute" in sys.argv:
        time.sleep(600)
    for line in sys.stdin:
        message = json.loads(line)
        if message.get("method") == "notifications/cancelled":
            _cancelled.add(message["params"]["requestId"])
        elif "id" in message and "method" in message:
            threading.Thread(target=serve, args=(message,), daemon=True).start()


if __name__ == "__main__":
    main()
