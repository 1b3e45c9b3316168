"""Made-up text such as MCP servers of hospitals return: the same for the same seed, nobody's data, and no secrets.

FHIR-like JSON, HL7 v2 messages, CSV, letters in several languages and scripts, URLs with percent-encoding, JSON in
JSON strings, hex digests, base64 attachments: everything that resembles an encoded value without being one.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import random
from collections.abc import Callable, Iterator
from urllib.parse import quote, urlencode

FAMILIES = (
    "Meier",
    "Müller-Lüdenscheidt",
    "Rossi",
    "García",
    "O'Connor",
    "Đorđević",
    "Иванова",
    "山田",
    "Öztürk",
    "Nkosi",
)
GIVEN = ("Anna", "José", "Zoë", "Søren", "Ольга", "太郎", "Mary Jane", "Jean-Luc")
CODES = (
    ("718-7", "Hemoglobin [Mass/volume] in Blood", "g/dL"),
    ("2345-7", "Glucose", "mg/dL"),
    ("8867-4", "HR", "/min"),
)
DRUGS = (
    "Paracetamol 500 mg 1-0-1",
    "Ramipril 2,5 mg 1-0-0",
    "Amoxicillin/Clavulanate 875/125",
    "Insulin glargine 12 IE",
)
LETTERS = (
    'Patient reports "stabbing" pain (7/10) since 3 days; RR 142/88, T 38.4 °C.\nPlan: CT, labs, re-check at 14:00.',
    "Sehr geehrte Frau Kollegin,\r\nwir berichten über o. g. Patienten, der sich am Übergabetag nüchtern vorstellte.",
    "Le patient présente une dyspnée d'effort; saturation à 94 % sous 2 l/min d'O₂. Antécédents: néant.",
    "患者は昨日から発熱(38.9℃)あり。抗菌薬を開始した。アレルギー歴なし。",
    "C:\\temp\\new\\report_0x1F.txt 100% done\tpath=/var/lib/dicom/1.2.840.10008.5.1.4.1.1.2 😀",
    "postgresql://reader@db.hospital.example:5432/records answered in 12 ms; password authentication is off",
)


def records(seed: int) -> Iterator[bytes]:
    """Without an end: one record after the other, in turns of every kind."""
    rng = random.Random(seed)  # noqa: S311 - the same in each run
    while True:
        yield rng.choice(_KINDS)(rng)


def corpus(size: int, *, seed: int = 20261123) -> Iterator[bytes]:
    """At least `size` bytes, in records of some hundred bytes to some kilobytes."""
    made = 0
    for record in records(seed):
        yield record
        made += len(record)
        if made >= size:
            return


def messages(size: int, *, seed: int = 20261123) -> Iterator[bytes]:
    """The same as JSON-RPC results, one line each: what a server on stdio writes."""
    for number, record in enumerate(corpus(size, seed=seed)):
        content = [{"type": "text", "text": record.decode()}]
        result = {"jsonrpc": "2.0", "id": number, "result": {"content": content, "isError": False}}
        yield json.dumps(result, ensure_ascii=number % 2 == 0).encode() + b"\n"


def _observation(rng: random.Random) -> bytes:
    code, name, unit = rng.choice(CODES)
    observation = {
        "resourceType": "Observation",
        "id": rng.randbytes(16).hex(),
        "code": {"coding": [{"system": "http://loinc.org", "code": code, "display": name}]},
        "subject": {"reference": f"Patient/{rng.randrange(10**8)}", "display": _name(rng)},
        "effectiveDateTime": f"2026-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}T{rng.randrange(24):02}:07:00+01:00",
        "valueQuantity": {"value": round(rng.random() * 20, 3), "unit": unit},
        "note": [{"text": rng.choice(LETTERS)}],
        "hash": rng.randbytes(32).hex().upper(),
    }
    return json.dumps(observation, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, 2))).encode()


def _nested(rng: random.Random) -> bytes:
    return json.dumps({"payload": _observation(rng).decode(), "retries": rng.randrange(9)}).encode()


def _hl7(rng: random.Random) -> bytes:
    stamp = f"202611{rng.randint(1, 28):02}{rng.randrange(24):02}{rng.randrange(60):02}"
    code, name, unit = rng.choice(CODES)
    return (
        f"MSH|^~\\&|LAB|H{rng.randrange(9)}|EHR|A|{stamp}||ORU^R01|{rng.randrange(10**10)}|P|2.5.1\r"
        f"PID|1||{rng.randrange(10**9):09}^^^MRN||{_name(rng).replace(' ', '^')}||{rng.randint(1930, 2020)}0412|F\r"
        f"OBX|1|NM|{code}^{name}^LN||{rng.random() * 10:.2f}|{unit}|3.5-5.1|N|||F\r"
    ).encode()


def _table(rng: random.Random) -> bytes:
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(["id", "name", "born", "drug", "iban", "phone"])
    for _ in range(20):
        iban = f"DE{rng.randrange(10**20):020}"
        born = f"{rng.randint(1930, 2020)}-04-12"
        rows.writerow([rng.randrange(10**8), _name(rng), born, rng.choice(DRUGS), iban, f"+49 {rng.randrange(10**9)}"])
    return out.getvalue().encode()


def _letter(rng: random.Random) -> bytes:
    return "\n\n".join(rng.choices(LETTERS, k=4)).encode()


def _link(rng: random.Random) -> bytes:
    query = urlencode({"name": _name(rng), "note": rng.choice(LETTERS), "page": rng.randrange(99)})
    return f"https://ehr.example/fhir/{quote(_name(rng), safe='')}?{query}#{rng.randbytes(8).hex()}".encode()


def _attachment(rng: random.Random) -> bytes:
    data = rng.randbytes(rng.randint(300, 3000))
    encoded = rng.choice((base64.b64encode, base64.urlsafe_b64encode))(data).decode()
    return json.dumps({"resourceType": "Binary", "contentType": "application/pdf", "data": encoded}).encode()


def _name(rng: random.Random) -> str:
    return f"{rng.choice(GIVEN)} {rng.choice(FAMILIES)}"


_KINDS: tuple[Callable[[random.Random], bytes], ...] = (
    _observation,
    _nested,
    _hl7,
    _table,
    _letter,
    _link,
    _attachment,
)
