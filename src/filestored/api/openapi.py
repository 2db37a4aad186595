"""The OpenAPI document (3.1), written from the table of routes and from the models."""

import inspect
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from filestored.access import Permission
from filestored.api.models import Problem
from filestored.api.routes import BYTES, CHUNK, HTML, OPEN, TEXT, Answer, Parameter, Route, path_parameters
from filestored.errors import (
    Busy,
    Conflict,
    Forbidden,
    HeadersTooLarge,
    MethodNotAllowed,
    PreconditionFailed,
    RangeNotSatisfiable,
    RequestError,
    StorageFault,
    Unauthorized,
    UnknownVersion,
)

VERSION = "1"
"""Of the API. The program's own is nothing that strangers are told."""

_Json = dict[str, Any]
_Body = type[BaseModel] | str | None
_Mode = Literal["validation", "serialization"]
_Models = dict[Any, JsonSchemaValue]

_EVERYWHERE = (HeadersTooLarge, StorageFault)
_GUARDED = (Unauthorized, Forbidden)
_ERROR_HEADERS = {
    Busy: ("Retry-After",),
    Conflict: ("Upload-Offset",),
    MethodNotAllowed: ("Allow",),
    RangeNotSatisfiable: ("Content-Range",),
    Unauthorized: ("WWW-Authenticate",),
    UnknownVersion: ("Tus-Version",),
}

_INFO = {
    "title": "filestored",
    "version": VERSION,
    "summary": "POST a file, get its hash; GET the file by its hash; DELETE it by its hash.",
    "description": (
        "A hash is the lower-case hex of the hash over a file's bytes; it is read in either case.\n\n"
        "Every error is `application/problem+json` (RFC 9457), whose `detail` says what is wrong and what to do. "
        "A method that an address does not have is answered with `405` and `Allow`.\n\n"
        "A request names its token by `Authorization: Bearer`, or by `Basic` with the token as the password. Whether "
        "something is allowed without one is for the operator to say."
    ),
}

_TAGS = [
    {"name": "files", "description": "The bytes: upload, download, delete."},
    {"name": "v1", "description": "The same and more, in JSON."},
    {"name": "uploads", "description": "Uploads that can be resumed: the protocol tus 1.0.0 and its extensions."},
    {"name": "server", "description": "How the server is, and what it can do."},
]

_SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A token of this server (RFC 6750)."},
    "basic": {"type": "http", "scheme": "basic", "description": "Any user name, and the token as the password."},
    "link": {
        "type": "apiKey",
        "in": "query",
        "name": "signature",
        "description": "A signed link, which reads one file: `expires` and `signature`, both as the server gave them.",
    },
}

_HEADERS = {
    "Accept-Ranges": "`bytes`: parts can be asked for.",
    "Allow": "The methods that there are (RFC 9110, 10.2.1).",
    "Cache-Control": "For how long the answer may be kept.",
    "Content-Disposition": "Whether a browser shows the file, and the name it saves it under (RFC 6266).",
    "Content-Range": "Which bytes these are, of how many (RFC 9110, 14.4).",
    "ETag": "The file's hash, in quotation marks.",
    "Filestored-Hash": "The hash of the file that has come of an upload. Only where that is complete.",
    "Last-Modified": "When the bytes were stored.",
    "Location": "The address of the file, or of the upload.",
    "Repr-Digest": "SHA-256 or SHA-512 of the whole file (RFC 9530).",
    "Retry-After": "After how many seconds to try again.",
    "Sunset": "When the file will be gone (RFC 8594).",
    "Tus-Checksum-Algorithm": "What `Upload-Checksum` can be by, with commas between.",
    "Tus-Extension": "The extensions of tus that there are, with commas between.",
    "Tus-Max-Size": "How many bytes an upload may have. Only where there is a limit.",
    "Tus-Resumable": "The version of tus that is spoken here.",
    "Tus-Version": "The versions of tus that are spoken here.",
    "Upload-Concat": "`Upload-Concat` as the upload was begun with it. Only where it was.",
    "Upload-Defer-Length": "`1`: how long the upload will be was not told yet.",
    "Upload-Expires": "When the upload will be gone if nobody goes on with it. Only while it is not complete.",
    "Upload-Length": "How many bytes the whole upload has. Only where that was told.",
    "Upload-Metadata": "`Upload-Metadata` as the upload was begun with it. Only where it was.",
    "Upload-Offset": "How many bytes of the upload are there: from where to go on.",
    "WWW-Authenticate": "How to name a token (RFC 6750, RFC 7617).",
}
_NUMBERS = frozenset({"Retry-After", "Tus-Max-Size", "Upload-Length", "Upload-Offset"})

_SCHEMAS: _Json = {
    # not a keyword of 3.1 any more, but what programs that read the document know raw bytes by
    BYTES: {"schema": {"type": "string", "format": "binary"}},
    CHUNK: {"schema": {"type": "string", "format": "binary"}},
    HTML: {"schema": {"type": "string"}},
    TEXT: {"schema": {"type": "string"}},
}


def describe(routes: Iterable[Route], anonymous: Permission) -> bytes:
    """Return the document in JSON. ``anonymous`` is what a request without a token can be let in for."""
    table = tuple(routes)
    models, definitions = _schemas(table)
    paths: _Json = {}
    for route in table:
        item = paths.setdefault(route.path, _path_item(route.path))
        item[route.method.lower()] = _operation(route, models, anonymous)
    document = {
        "openapi": "3.1.0",
        "info": _INFO,
        "servers": [{"url": "/"}],
        "tags": _TAGS,
        "paths": paths,
        "components": {
            "schemas": definitions,
            "responses": _error_responses(table, models),
            "headers": {name: _header(name, meaning) for name, meaning in _HEADERS.items()},
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }
    # what comes from docstrings is written for programmers
    return json.dumps(document, ensure_ascii=False).replace("``", "`").encode()


class _SchemaWriter(GenerateJsonSchema):
    """JSON schema without what says nothing to a reader of the document."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        described = super().default_schema(schema)
        if "default" in described and described["default"] is None:
            # None stands for a field that is left out, which is not the same as null
            del described["default"]
        return described


def _schemas(table: tuple[Route, ...]) -> tuple[_Models, _Json]:
    """Return what refers to each model, and the schemas themselves."""
    wanted = dict.fromkeys(_models(table))
    models, schema = models_json_schema(
        list(wanted), ref_template="#/components/schemas/{model}", schema_generator=_SchemaWriter
    )
    return dict(models), schema["$defs"]


def _models(table: tuple[Route, ...]) -> Iterator[tuple[type[BaseModel], _Mode]]:
    """Yield the models of all bodies, each with the direction it goes."""
    yield Problem, "serialization"
    for route in table:
        for body in (route.body, route.form):
            if isinstance(body, type):
                yield body, "validation"
        for answer in route.answers.values():
            for body in (answer.body, answer.as_json):
                if isinstance(body, type):
                    yield body, "serialization"


def _path_item(path: str) -> _Json:
    parameters = path_parameters(path)
    return {"parameters": [_parameter(parameter, "path") for parameter in parameters]} if parameters else {}


def _operation(route: Route, models: _Models, anonymous: Permission) -> _Json:
    operation: _Json = {
        "operationId": "_".join([route.method.lower(), *(re.findall(r"\w+", route.path) or ["root"])]),
        "tags": [_tag(route.path)],
        "summary": route.summary + (": only the headers" if route.method == "HEAD" else ""),
        "description": _needs(route) + _conditions(route) + _always(route) + _page(route),
        "security": _security(route, anonymous),
        "responses": _responses(route, models),
    }
    if route.parameters or route.headers:
        operation["parameters"] = [
            *(_parameter(parameter, "query") for parameter in route.parameters),
            *(_parameter(parameter, "header") for parameter in route.headers),
        ]
    if route.body is not None:
        operation["requestBody"] = _request_body(route, models)
    return operation


def _tag(path: str) -> str:
    if path.startswith("/v1/uploads"):
        return "uploads"
    if path.startswith("/v1/"):
        return "v1"
    return "files" if path == "/" or path.startswith("/{") else "server"


def _needs(route: Route) -> str:
    if route.needs is OPEN:
        return "Open to everybody."
    either = " or ".join(f"`{need.spelled()}`" for need in route.needs | route.alternative)
    return f"Needs the permission {either}{', or a signed link to the file' if route.takes_link else ''}."


def _conditions(route: Route) -> str:
    """Say which headers of RFC 9110 are listened to."""
    ranges = " `Range` and `If-Range` are listened to (RFC 9110, 14)." if RangeNotSatisfiable in route.errors else ""
    if PreconditionFailed not in route.errors:
        return ranges
    return " `If-Match`, `If-None-Match` and the conditions with dates hold (RFC 9110, 13)." + ranges


def _always(route: Route) -> str:
    """Say which headers errors have, too, which share their description with those of other addresses."""
    if not route.always:
        return ""
    return f" Each answer, an error too, has {' and '.join(f'`{name}`' for name in _always_names(route))}."


def _always_names(route: Route) -> list[str]:
    return [name.decode().title() for name, _ in route.always]


def _page(route: Route) -> str:
    if route.page is None:
        return ""
    return " A browser that asks without a query (`Accept` has `text/html`) is shown the web page, whoever it is."


def _security(route: Route, anonymous: Permission) -> list[_Json]:
    if route.needs is OPEN:
        return []
    ways: list[_Json] = [{"bearer": []}, {"basic": []}]
    if route.takes_link:
        ways.append({"link": []})
    if anonymous & (route.needs | route.alternative):
        ways.append({})
    return ways


def _parameter(parameter: Parameter, place: str) -> _Json:
    described = {
        "name": parameter.name,
        "in": place,
        "description": parameter.meaning,
        "schema": parameter.schema,
    }
    return described | {"required": True} if parameter.is_required else described


def _request_body(route: Route, models: _Models) -> _Json:
    content = _content(route.body, models, "validation")
    if route.form is not None:
        encoding = {"file": {"contentType": BYTES}}
        content["multipart/form-data"] = {"schema": models[route.form, "validation"], "encoding": encoding}
    body = {"required": route.is_body_required, "content": content}
    if route.body == BYTES:
        # a range of types, */*, would take in that of the form too, which is read in another way
        body["description"] = "The bytes as they are, under the media type the file is to have, whichever that is."
    return body


def _responses(route: Route, models: _Models) -> _Json:
    responses = {status: _response(route, answer, models) for status, answer in route.answers.items()}
    for error in _errors(route):
        responses.setdefault(error.status, {"$ref": f"#/components/responses/{error.__name__}"})
    return {str(status): responses[status] for status in sorted(responses)}


def _response(route: Route, answer: Answer, models: _Models) -> _Json:
    described: _Json = {"description": answer.meaning}
    if names := [*answer.headers, *_always_names(route)]:
        described["headers"] = {name: _header_reference(name) for name in names}
    content = _content(answer.body, models, "serialization") | _content(answer.as_json, models, "serialization")
    if content and route.method != "HEAD":
        described["content"] = content
    return described


def _content(body: _Body, models: _Models, mode: _Mode) -> _Json:
    if body is None:
        return {}
    if isinstance(body, str):
        return {body: _SCHEMAS.get(body, {})}
    return {"application/json": {"schema": models[body, mode]}}


def _errors(route: Route) -> list[type[RequestError]]:
    guarded = () if route.needs is OPEN else _GUARDED
    return [*route.errors, *guarded, *_EVERYWHERE]


def _error_responses(table: tuple[Route, ...], models: _Models) -> _Json:
    errors = {error.__name__: error for route in table for error in _errors(route)}
    return {error.__name__: _error_response(error, models) for error in sorted(errors.values(), key=_place)}


def _place(error: type[RequestError]) -> tuple[int, str]:
    return error.status, error.__name__


def _error_response(error: type[RequestError], models: _Models) -> _Json:
    sentence = (inspect.getdoc(error) or error.title).partition(". ")[0].partition(" (RFC")[0]
    described: _Json = {
        "description": sentence.rstrip(".") + ".",
        "content": {"application/problem+json": {"schema": models[Problem, "serialization"]}},
    }
    names = _ERROR_HEADERS.get(error, ())
    if names:
        described["headers"] = {name: _header_reference(name) for name in names}
    return described


def _header(name: str, meaning: str) -> _Json:
    kind = {"type": "integer", "minimum": 0} if name in _NUMBERS else {"type": "string"}
    return {"description": meaning, "schema": kind}


def _header_reference(name: str) -> _Json:
    return {"$ref": f"#/components/headers/{name}"}
