"""Routes of enrolment and of enrolled instances."""

# Without `from __future__ import annotations`: FastAPI reads the annotations of routes that are made in a function.

from typing import Annotated

import structlog
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from services.policy.api.desk import Desk, Handout, receipt_body, written
from services.policy.api.entities import After, Limit
from services.policy.api.views import (
    Changed,
    EnrolmentView,
    InstanceView,
    Listing,
    Promise,
    ReceiptView,
    enrolment_views,
)
from services.policy.commands import instances
from services.policy.commands.newcomers import CertificateHolder, KeyHolder, Newcomer
from services.policy.commands.refusals import tell_refusal
from services.policy.domain.drafts import EnrolmentDraft
from services.policy.domain.enrolments import Refuse, token_sha256
from shared.administration import Administrator, Role
from shared.delivery.certificates import as_pem
from shared.delivery.https_only import CertificateEnrolAnswer, CertificateEnrolRequest
from shared.delivery.messages import EnrolAnswer, EnrolRequest, parse_request
from shared.errors import BadRequest, KeyfobError, NotAvailable, Unauthenticated
from shared.events.policy import DeliveryProfile, InstanceRecord, InstanceState

_log = structlog.get_logger(__name__)


def routes(desk: Desk) -> APIRouter:
    """The routes, under `/v1`."""
    router = APIRouter()
    _add_promises(router, desk)
    _add_enrolment_lists(router, desk)
    _add_enrol(router, desk)
    _add_enrol_by_certificate(router, desk)
    _add_states(router, desk)
    return router


def _add_promises(router: APIRouter, desk: Desk) -> None:
    admin = Depends(desk.guard.requires(Role.ADMIN))

    @router.post("/v1/enrolments", status_code=201, response_model=Promise)
    async def create_enrolment(draft: EnrolmentDraft, who: Annotated[Administrator, admin]) -> Response:
        if draft.delivery is DeliveryProfile.HTTPS and desk.instance_ca is None:
            raise BadRequest("No instance comes in by certificate here: KEYFOB_POLICY_INSTANCE_CA_FILE is not set.")
        async with desk.ledger.open(who.actor) as work:
            promised = await instances.promise(work, draft)
            (view,) = await enrolment_views(work, [promised.enrolment])
        entity = view.model_dump(mode="json")
        extra = {"token": promised.token, "expires_at": entity["expires_at"], "entity": entity}
        return written(receipt_body(promised.receipt) | extra, 201)

    @router.delete("/v1/enrolments/{key:path}", response_model=ReceiptView)
    async def delete_enrolment(key: str, who: Annotated[Administrator, admin]) -> Response:
        async with desk.ledger.open(who.actor) as work:
            receipt = await instances.withdraw(work, key)
        return written(receipt_body(receipt))


def _add_enrolment_lists(router: APIRouter, desk: Desk) -> None:
    reader = Depends(desk.guard.requires(Role.AUDITOR, Role.OPERATOR))

    @router.get("/v1/enrolments", dependencies=[reader], response_model=Listing[EnrolmentView])
    async def list_enrolments(limit: Limit = 100, after: After = None) -> Response:
        async with desk.ledger.read() as reading:
            page = await reading.enrolment_page(after=after, limit=limit)
            views = await enrolment_views(reading, page.items)
        return written({"items": [view.model_dump(mode="json") for view in views], "next": page.next})

    @router.get("/v1/enrolments/{key:path}", dependencies=[reader], response_model=EnrolmentView)
    async def show_enrolment(key: str) -> Response:
        async with desk.ledger.read() as reading:
            found = await reading.enrolment_by_name(key)
            if found is None:
                raise NotAvailable
            (view,) = await enrolment_views(reading, [found])
        return written(view)


def _add_enrol(router: APIRouter, desk: Desk) -> None:
    body = {"required": True, "content": {"application/json": {"schema": EnrolRequest.model_json_schema()}}}

    @router.post("/v1/enrol", response_model=EnrolAnswer, openapi_extra={"requestBody": body})
    async def enrol(request: Request) -> Response:
        newcomer = KeyHolder(parse_request(await request.body(), EnrolRequest))
        # Before the database: a signature costs us less than a connection that strangers can make us take.
        newcomer.prove()
        return written(_answer(await _let_in(desk, newcomer), desk.handout))


def _add_enrol_by_certificate(router: APIRouter, desk: Desk) -> None:
    body = {"required": True, "content": {"application/json": {"schema": CertificateEnrolRequest.model_json_schema()}}}

    @router.post("/v1/enrol/certificate", response_model=CertificateEnrolAnswer, openapi_extra={"requestBody": body})
    async def enrol_by_certificate(request: Request) -> Response:
        if desk.instance_ca is None:
            raise NotAvailable
        asked = parse_request(await request.body(), CertificateEnrolRequest)
        instance = await _let_in(desk, CertificateHolder.proved(asked, desk.instance_ca))
        return written(
            CertificateEnrolAnswer(
                instance_id=instance.id,
                labels=instance.labels,
                allowed_servers=instance.allowed_servers,
                certificate=as_pem(instance.certificate),
                resolvers=desk.handout.https_urls,
                policy_key=desk.handout.policy_key,
            )
        )


async def _let_in(desk: Desk, newcomer: Newcomer) -> InstanceRecord:
    try:
        # Without a good token nobody gets as far as the lock that all changes wait for.
        async with desk.ledger.read() as reading:
            if isinstance(await instances.judge(reading, newcomer), Refuse):
                raise instances.refusal()
        async with desk.ledger.open(instances.enroller()) as work:
            return await instances.enrol(work, newcomer)
    except Unauthenticated:
        await _record_refusal(desk, token_sha256(newcomer.token))
        raise


async def _record_refusal(desk: Desk, token_digest: str) -> None:
    """Put a refused token on record, within bounds; one that can't be recorded is still refused."""
    try:
        async with desk.ledger.read() as reading:
            enrolment = await reading.enrolment_by_token(token_digest)
        # Nobody who only made a token up may wait for the lock, nor let others wait: that one is for the log.
        if desk.refusals.admits(enrolment) and enrolment is not None:
            async with desk.ledger.open(instances.enroller()) as work:
                tell_refusal(work, enrolment)
    except KeyfobError as error:
        _log.warning("refused enrolment not recorded", reason=error.kind)


def _answer(instance: InstanceRecord, handout: Handout) -> EnrolAnswer:
    return EnrolAnswer(
        instance_id=instance.id,
        labels=instance.labels,
        allowed_servers=instance.allowed_servers,
        resolver_keys=handout.resolver_keys,
        policy_key=handout.policy_key,
        notifier=handout.notifier,
        bootstrap={"broker": handout.broker, "resolver": ",".join(handout.resolver_urls)},
    )


def _add_states(router: APIRouter, desk: Desk) -> None:
    admin = Depends(desk.guard.requires(Role.ADMIN))

    @router.post("/v1/instances/{key:path}/ban", response_model=Changed[InstanceView])
    async def ban(key: str, who: Annotated[Administrator, admin]) -> Response:
        async with desk.ledger.open(who.actor) as work:
            return await desk.said(work, await instances.set_state(work, key, InstanceState.BANNED))

    @router.post("/v1/instances/{key:path}/allow", response_model=Changed[InstanceView])
    async def allow(key: str, who: Annotated[Administrator, admin]) -> Response:
        async with desk.ledger.open(who.actor) as work:
            return await desk.said(work, await instances.set_state(work, key, InstanceState.ACTIVE))
