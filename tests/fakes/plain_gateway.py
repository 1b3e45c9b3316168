"""A gateway of the profile `https` in the standard library's words: it knows nothing of Keyfob but docs/protocol.md."""

import base64
import http.client
import json
import ssl
import subprocess
import threading
import time
import uuid
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

FENCE_S = 60


class PlainGateway:
    def __init__(self, directory: Path, name: str, ca: Path) -> None:
        self.key, self.request, self.certificate = (directory / f"{name}.{end}" for end in ("key", "csr", "pem"))
        self.name, self.ca, self.lock, self.alive = name, ca, threading.RLock(), True
        self.held: dict[str, tuple[dict[str, Any], bytes]] = {}
        self.ended: list[dict[str, str]] = []
        self.released: list[str] = []
        self.floor, self.place, self.ticked, self.n = {"policy": 0, "catalog": 0}, -1, 0.0, 0
        self.run = f"run/{uuid.uuid4().hex}"

    def enrol(self, policy: str, token: str) -> None:
        make = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-batch"]
        subprocess.run([*make, "-keyout", self.key, "-out", self.request], check=True, capture_output=True)
        body = {"token": token, "name": self.name, "certificate_request": self.request.read_text()}
        with closing(http.client.HTTPConnection(urlsplit(policy).netloc, timeout=10)) as connection:
            connection.request("POST", "/v1/enrol/certificate", json.dumps(body))
            self.identity = json.loads(connection.getresponse().read())
        self.certificate.write_text(self.identity["certificate"])

    def connect(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(self.certificate, self.key)
        return http.client.HTTPSConnection(urlsplit(self.identity["resolvers"][0]).netloc, context=context, timeout=20)

    def call(self, path: str, body: object, **headers: str) -> tuple[int, Any]:
        with closing(self.connect()) as connection:
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or "null")

    def follow(self) -> None:
        while self.alive:
            with suppress(OSError, http.client.HTTPException), closing(self.connect()) as connection:
                place = {} if self.place < 0 else {"Last-Event-ID": str(self.place)}
                connection.request("GET", "/v1/notices", headers=place)
                answer, event = connection.getresponse(), dict[str, str]()
                for line in answer if answer.status == http.HTTPStatus.OK else ():
                    name, _, value = line.decode().rstrip("\n").partition(": ")
                    if name:
                        event[name] = value
                    elif not self.alive:
                        break
                    elif "event" in event:
                        self.take(event.pop("event"), json.loads(event.pop("data")))
            time.sleep(0.2)

    def take(self, kind: str, said: dict[str, Any]) -> None:
        with self.lock:
            if kind == "tick" and time.time() - datetime.fromisoformat(said["at"]).timestamp() < FENCE_S:
                self.ticked = time.monotonic()
            if kind == "notice":
                self.drop([one for one, (lease, _) in self.held.items() if ends(said, lease)], "notice")
            if kind == "lost":
                self.drop(list(self.held), "fenced")
            self.place, self.floor = said["offset"], said.get("floor", self.floor)
            if kind != "tick":
                self.post()

    def drop(self, leases: list[str], why: str) -> None:
        for lease in leases:
            del self.held[lease]
            self.ended.append({"lease_id": lease, "why": why, "at": datetime.now(UTC).isoformat()})

    def look(self) -> None:
        """Once a second: what ended by itself, and the receipt that is due."""
        with self.lock:
            if time.monotonic() - self.ticked > FENCE_S:
                self.drop(list(self.held), "fenced")
            self.drop([one for one, (lease, _) in self.held.items() if lease["expires_at"] <= time.time()], "expired")
            self.post()

    def post(self) -> None:
        ended, released, self.n = self.ended[:500], self.released[:500], self.n + 1
        body = {"run": self.run, "n": self.n, "applied_offset": self.place, "dropped_offset": self.place}
        body |= {"open_leases": len(self.held), "ended": ended, "released": released}
        with suppress(OSError, http.client.HTTPException):
            if self.call("/v1/receipts", body | {"at": datetime.now(UTC).isoformat()})[0] == http.HTTPStatus.NO_CONTENT:
                del self.ended[: len(ended)], self.released[: len(released)]

    def resolve(self, token: str, server: str) -> tuple[int, Any]:
        # Whatever notice comes while it is out is applied when its leases are known.
        with self.lock:
            wish = {"server": server, "floor": self.floor}
            status, said = self.call("/v1/resolve", wish, Authorization=f"Bearer {token}")
            if status == http.HTTPStatus.OK and time.monotonic() - self.ticked < FENCE_S:
                self.released.append("{stream}/{n}/{hash}".format(**said["record"]))
                for one in said["fields"]:
                    self.held[one["lease"]["id"]] = one["lease"], base64.urlsafe_b64decode(one["value"] + "==")
            return status, said


def ends(notice: dict[str, Any], lease: dict[str, Any]) -> bool:
    old = [one.get("current") for one in notice["superseded"] if one["reference_id"] == lease["reference_id"]]
    named = set(notice["ended"]) & {*lease["rests_on"], lease["reference_id"]}
    return bool(named) or any(current != lease["version"] for current in old)
