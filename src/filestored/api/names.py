"""File names and media types: as clients give them, and as they go into headers (RFC 6266, RFC 8187, RFC 9110, 8.3)."""

import re
from mimetypes import MimeTypes
from urllib.parse import quote, unquote_to_bytes

from filestored.catalogue.records import UNKNOWN_TYPE
from filestored.errors import BadRequest

MAX_NAME_BYTES = 255
"""The longest file name, in bytes of UTF-8: what file systems take."""

MAX_MEDIA_TYPE_BYTES = 255
"""The longest media type, with its parameters."""

_MAX_SUFFIX_BYTES = 32
# C0, DEL, C1, what turns the direction of writing around, and halves of surrogate pairs
_UNWANTED = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_NOT_PLAIN = re.compile(r'[^ -~]|["%\\/]')

_WORD = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_QUOTED = r'"(?:[ !#-\[\]-~]|\\[ -~])*"'
_PARAMETER = re.compile(rf'(?:^|;)[ \t]*({_WORD})[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^;]*)', re.DOTALL)
_EXTENDED = re.compile(r"(utf-8|iso-8859-1)'[^']*'([A-Za-z0-9!#$&+.^_`|~%-]*)", re.IGNORECASE | re.ASCII)
_MEDIA_TYPE = re.compile(rf"({_WORD}/{_WORD})[ \t]*((?:;[ \t]*(?:{_WORD}=(?:{_WORD}|{_QUOTED})[ \t]*)?)*)")
_MEDIA_PARAMETER = re.compile(rf"{_WORD}=(?:{_WORD}|{_QUOTED})")

# what Python does not know, or not in every version; a compressed file is what it is, not what is in it
_MORE_TYPES = {
    ".7z": "application/x-7z-compressed",
    ".apk": "application/vnd.android.package-archive",
    ".avif": "image/avif",
    ".br": UNKNOWN_TYPE,
    ".bz2": "application/x-bzip2",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".epub": "application/epub+zip",
    ".flac": "audio/flac",
    ".gz": "application/gzip",
    ".heic": "image/heic",
    ".js": "text/javascript",
    ".jxl": "image/jxl",
    ".log": "text/plain",
    ".m4a": "audio/mp4",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".mkv": "video/x-matroska",
    ".odp": "application/vnd.oasis.opendocument.presentation",
    ".ods": "application/vnd.oasis.opendocument.spreadsheet",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".ogv": "video/ogg",
    ".opus": "audio/ogg",
    ".parquet": "application/vnd.apache.parquet",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".rar": "application/vnd.rar",
    ".rtf": "application/rtf",
    ".svgz": "application/gzip",
    ".taz": "application/gzip",
    ".tbz2": "application/x-bzip2",
    ".tgz": "application/gzip",
    ".toml": "application/toml",
    ".txz": "application/x-xz",
    ".wasm": "application/wasm",
    ".wav": "audio/wav",
    ".webm": "video/webm",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".xz": "application/x-xz",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".z": "application/x-compress",
    ".zst": "application/zstd",
}
# an instance of its own does not read the machine's mime.types
_STANDARD = MimeTypes().types_map
_TYPES = {**_STANDARD[False], **_STANDARD[True], **_MORE_TYPES}


def clean_name(raw: str) -> str | None:
    """Return a file name fit to be kept: without path, control characters and what reverses the writing.

    The path may be written with either slash. A name longer than :data:`MAX_NAME_BYTES` loses the end of what precedes
    its extension. None where nothing is left, or ``.`` or ``..``.
    """
    name = _UNWANTED.sub("", raw.replace("\\", "/").rpartition("/")[2])
    if name in ("", ".", ".."):
        return None
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    stem, dot, extension = name.rpartition(".")
    suffix = dot + extension if stem and len(extension.encode()) < _MAX_SUFFIX_BYTES else ""
    kept = name.removesuffix(suffix).encode()[: MAX_NAME_BYTES - len(suffix.encode())]
    return kept.decode(errors="ignore") + suffix


def disposition_parameters(value: str) -> dict[str, str]:
    """Return the parameters of ``Content-Disposition`` or of a media type, by lower-case name; the first of two counts.

    Takes what clients really send: raw UTF-8, a missing type in front, a quotation mark as ``%22`` (the form encoding
    of browsers). Linear in the length of ``value``.
    """
    parameters: dict[str, str] = {}
    for match in _PARAMETER.finditer(value):
        name, text = match[1].lower(), _unquoted(match[2].rstrip(" \t"))
        if not name.endswith("*"):
            text = text.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")
        parameters.setdefault(name, text)
    return parameters


def name_from_disposition(value: str) -> str | None:
    """Return the file name in ``Content-Disposition``, None where it has none; :func:`clean_name` has yet to see it.

    ``filename*`` counts for more than ``filename`` where it can be decoded (RFC 6266, 4.3).
    """
    parameters = disposition_parameters(value)
    extended = _decode_extended(parameters.get("filename*", ""))
    return parameters.get("filename") if extended is None else extended


def content_disposition(kind: str, name: str | None) -> bytes:
    """Return ``Content-Disposition``: ``inline`` or ``attachment``, and the file's name.

    A name that is not plain ASCII goes into ``filename*`` (RFC 8187), beside a ``filename`` that resembles it for old
    clients. Whatever the name, the header is visible ASCII and cannot be ended early.
    """
    if not name:
        return kind.encode("ascii")
    fallback = _NOT_PLAIN.sub("_", name)
    header = f'{kind}; filename="{fallback}"'
    if fallback != name:
        header += "; filename*=UTF-8''" + quote(name, safe="!#$&+^`|", errors="replace")
    return header.encode("ascii")


def guess_type(name: str) -> str:
    """Return the media type that a file's name suggests, by a table that is the same on every machine."""
    stem, dot, extension = name.rpartition(".")
    return _TYPES.get(dot + extension.lower(), UNKNOWN_TYPE) if stem else UNKNOWN_TYPE


def parse_media_type(text: str) -> str:
    """Return a media type (RFC 9110, 8.3.1), its parameters each after a semicolon and one space.

    Raises BadRequest where it is malformed or longer than :data:`MAX_MEDIA_TYPE_BYTES`.
    """
    match = _MEDIA_TYPE.fullmatch(text.strip(" \t")) if len(text) <= MAX_MEDIA_TYPE_BYTES else None
    normalised = "; ".join([match[1], *_MEDIA_PARAMETER.findall(match[2])]) if match else ""
    if not 0 < len(normalised) <= MAX_MEDIA_TYPE_BYTES:
        raise BadRequest(
            "The media type is malformed; it is written as type/subtype, for example image/png, "
            f"in at most {MAX_MEDIA_TYPE_BYTES} characters."
        )
    return normalised


def is_harmless_inline(media_type: str) -> bool:
    """Tell whether a browser may show this type as a page of the site: images but SVG, audio, video, plain text."""
    essence = media_type.partition(";")[0].strip(" \t").lower()
    kind, _, subtype = essence.partition("/")
    if kind in ("image", "audio", "video"):
        # anything made of XML can hold scripts, whatever it is called
        return re.fullmatch(_WORD, subtype) is not None and "svg" not in subtype and "xml" not in subtype
    return essence == "text/plain"


def _unquoted(text: str) -> str:
    """Return the value of a parameter without quotation marks and escapes."""
    if len(text) >= 2 and text[0] == text[-1] == '"':
        # other backslashes stay: browsers do not escape them, and old ones send whole Windows paths
        return re.sub(r'\\(["\\])', r"\1", text[1:-1])
    return text


def _decode_extended(text: str) -> str | None:
    """Return an extended value (RFC 8187, 3.2.1) decoded, None where it is not one."""
    match = _EXTENDED.fullmatch(text)
    if match is None:
        return None
    try:
        return unquote_to_bytes(match[2]).decode(match[1])
    except UnicodeDecodeError:
        return None
