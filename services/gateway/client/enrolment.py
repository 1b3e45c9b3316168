"""Becoming an instance: keys made on the spot and one single-use token, once in an instance's life."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import orjson
import structlog
from pydantic import ValidationError

from services.gateway.client.identity import Identity, Keys, load_identity, make_keys, save_answer
from services.gateway.client.posting import Post
from shared.config import Misconfigured, read_secret_file
from shared.delivery.enrolment import certify_sealing_key
from shared.delivery.messages import EnrolAnswer
from shared.errors import Unavailable

TIMEOUT_S: Final = 10.0
CREATED: Final = frozenset({200, 201})

_log = structlog.get_logger(__name__)


async def take_up(directory: Path, *, policy_url: str, token_file: Path | None, name: str, post: Post) -> Identity:
    """The identity in `directory`; where there is none yet, enrol and save one.

    Raises `Misconfigured` when there is nothing to enrol with, or policy refuses (a token works once), and
    `Unavailable` when policy does not answer.
    """
    identity = load_identity(directory)
    if identity is not None:
        return identity
    if token_file is None or not policy_url:
        raise Misconfigured(f"{directory} holds no identity: set the policy URL and the file with an enrolment token.")
    return await enrol(directory, policy_url=policy_url, token=read_secret_file(token_file), name=name, post=post)


async def enrol(directory: Path, *, policy_url: str, token: str, name: str, post: Post) -> Identity:
    """Make keys, present them with the token, and save what policy answers."""
    # On disk before anybody hears of them: an answer that is lost can be asked for again with the same keys.
    keys = make_keys(directory)
    answer = await post(f"{policy_url}/v1/enrol", headers={}, body=_request(keys, token, name), timeout_s=TIMEOUT_S)
    if answer.status >= 500:  # noqa: PLR2004 - RFC 9110: the server's fault
        raise Unavailable(f"Policy answered {answer.status} to an enrolment.")
    # Its words are not passed on: they may quote the token.
    if answer.status not in CREATED:
        raise Misconfigured(f"Policy refused the enrolment with {answer.status}: a token works once and not for ever.")
    try:
        enrolled = EnrolAnswer.model_validate_json(answer.body)
    except ValidationError:
        raise Unavailable("Policy's answer to an enrolment is not one that this instance understands.") from None
    save_answer(directory, enrolled)
    _log.info("enrolled", instance=enrolled.instance_id, signing_key=keys.signing.key_id)
    return Identity(keys, enrolled)


def _request(keys: Keys, token: str, name: str) -> bytes:
    return orjson.dumps(
        {
            "token": token,
            "name": name,
            "signing_key": keys.signing.verify_key.to_base64(),
            "sealing_key": keys.sealing.public.to_base64(),
            "sealing_key_signature": certify_sealing_key(keys.signing, keys.sealing.public),
        }
    )
