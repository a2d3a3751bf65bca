"""What somebody sees who opens the edge's address in a browser."""

from http import HTTPStatus

from fastapi import APIRouter, Response

from edge.api.lean import lean_router, spec
from edge.shop import Shop

_NO_PAGE = """\
This is a Hanse edge. Its API is described at /openapi.json and, for people, at /docs.
For a page to look at what it answers: hanse-edge storefront
"""


def routes(shop: Shop) -> APIRouter:
    """The front door, for people."""
    router = lean_router()

    @router.get("/", include_in_schema=False, **spec(str, permission=None, answer=_NO_PAGE, sheds=False))
    async def front() -> Response:
        """Leads to the storefront where there is one."""
        if shop.storefront:
            return Response(status_code=HTTPStatus.TEMPORARY_REDIRECT, headers={"Location": shop.storefront})
        return Response(_NO_PAGE, media_type="text/plain")

    return router
