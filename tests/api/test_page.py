"""The web page and its files: shown to browsers, open to all, under a policy that lets in nothing else."""

import gzip
import json
import re
from pathlib import Path

import httpx
import pytest

import filestored
from filestored.api import routes
from filestored.catalogue.records import now_milliseconds
from tests.conftest import StartDaemon
from tests.tokens import bearer, make_token

WEB = Path(filestored.__file__).with_name("web")
BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
ASSETS = sorted(path.name for path in WEB.iterdir() if path.name != "index.html")
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "worker-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' blob: data:",
    "media-src": "'self' blob:",
    "frame-src": "blob:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}


def policy_of(answer: httpx.Response) -> dict[str, str]:
    return dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))


def test_a_browser_that_asks_for_the_root_alone_is_shown_the_page(client: httpx.Client) -> None:
    for address in ("/", "/?"):
        answer = client.get(address, headers=BROWSER)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.content == (WEB / "index.html").read_bytes()
        assert "Accept" in answer.headers.get_list("vary", split_commas=True)
        assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("accept", ["*/*", "text/*", "text/plain", "application/json", "text/html;q=0", "image/png"])
def test_whoever_else_asks_for_the_root_alone_is_told_that_the_hash_is_missing(
    client: httpx.Client, accept: str
) -> None:
    answer = client.get("/", headers={"accept": accept})
    assert answer.status_code == 400
    assert "file_hash" in answer.json()["detail"]
    assert "Accept" in answer.headers.get_list("vary", split_commas=True)


def test_a_browser_that_asks_for_a_file_at_the_root_gets_the_file(client: httpx.Client) -> None:
    digest = client.post("/", content=b"bytes", headers={"content-type": "text/plain"}).text
    answer = client.get(f"/?file_hash={digest}", headers=BROWSER)
    assert (answer.status_code, answer.content) == (200, b"bytes")
    assert "Accept" not in answer.headers.get_list("vary", split_commas=True)
    assert client.get("/?file_hash=", headers=BROWSER).status_code == 400
    assert client.get("/?other=1", headers=BROWSER).status_code == 400


def test_the_root_has_the_methods_it_had(client: httpx.Client) -> None:
    for method in ("HEAD", "PUT", "PATCH", "OPTIONS"):
        answer = client.request(method, "/", headers=BROWSER)
        assert answer.status_code == 405
        assert set(answer.headers["allow"].split(", ")) == {"GET", "POST", "DELETE"}
    assert client.post("/", content=b"x", headers={**BROWSER, "content-type": "text/plain"}).status_code == 200
    assert client.delete("/", headers=BROWSER).status_code == 400


def test_page_and_files_are_open_to_strangers_and_the_rest_is_not(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--anonymous", "none")
    with httpx.Client(base_url=daemon.url) as stranger:
        page = stranger.get("/", headers=BROWSER)
        assert page.status_code == 200
        assert stranger.get("/").status_code == 401
        assert stranger.get("/?file_hash=" + "ab" * 32, headers=BROWSER).status_code == 401
        for name in ASSETS:
            answer = stranger.get(f"/web/{name}")
            assert (answer.status_code, answer.content) == (200, (WEB / name).read_bytes())
            head = stranger.head(f"/web/{name}")
            assert (head.status_code, head.content) == (200, b"")
            for header in ("etag", "content-type", "content-length", "cache-control"):
                assert head.headers[header] == answer.headers[header]
        assert stranger.post("/web/app.js").status_code == 405


def test_a_wrong_token_does_not_keep_anybody_from_the_page(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--anonymous", "none")
    wrong = {**BROWSER, "authorization": "Bearer fs-000000000000-wrong"}
    assert httpx.get(daemon.url, headers=wrong).status_code == 200


def test_all_of_the_page_may_load_and_do_only_what_its_policy_says(client: httpx.Client) -> None:
    for address, headers in (("/", BROWSER), *((f"/web/{name}", {}) for name in ASSETS)):
        answer = client.get(address, headers=headers)
        assert policy_of(answer) == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        again = client.get(address, headers={**headers, "if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert answer.headers["cache-control"] == "no-cache"


def test_no_other_file_can_be_asked_for(client: httpx.Client) -> None:
    names = ["index.html", "other.js", "%2e%2e%2fapi%2fapp.py", "..%2fapi%2fapp.py", "app.js%00", "APP.JS", ""]
    for name in names:
        assert client.get(f"/web/{name}").status_code == 404, name


def test_files_are_packed_for_whoever_can_unpack_them(client: httpx.Client) -> None:
    with client.stream("GET", "/web/page.css", headers={"accept-encoding": "br, gzip"}) as answer:
        packed = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) == len(packed) < len(gzip.decompress(packed)) / 2
    assert gzip.decompress(packed) == (WEB / "page.css").read_bytes()
    for other in ("identity", "gzip;q=0", "br"):
        plain = client.get("/web/page.css", headers={"accept-encoding": other})
        assert "content-encoding" not in plain.headers
        assert plain.content == (WEB / "page.css").read_bytes()
        assert plain.headers["etag"] != answer.headers["etag"]
        assert "Accept-Encoding" in plain.headers.get_list("vary", split_commas=True)


def test_whatever_the_page_names_is_there_and_nothing_comes_from_elsewhere() -> None:
    page = (WEB / "index.html").read_text()
    named = re.findall(r'(?:src|href)="/web/([^"]+)"', page)
    assert {"app.js", "early.js", "page.css"} <= set(named) <= set(ASSETS)
    assert not re.search(r"""(?:src|href)=["'](?!/web/|#)""", page)
    # the policy forbids all of these, which is why none of them may be in the page
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*src=)", page)
    for name in ASSETS:
        text = (WEB / name).read_text()
        assert not re.search(r"https?://(?!www\.w3\.org/)", text), name
        if name.endswith(".js"):
            assert not re.search(r"(inner|outer|Adjacent)HTML|document\.write|\beval\(|\bFunction\(", text), name
            for other in re.findall(r"""(?:from|import)\s*\(?["']\./([^"'$]+)["']""", text):
                assert other in ASSETS, (name, other)


# what is loaded together with the words of dialogs
WITH_DIALOGS = {"actions.js", "dialogs.js", "preview.js", "sign-in.js"}


def test_every_word_is_there_in_both_languages() -> None:
    spoken = {}
    for table in ("page", "dialog"):
        for language in ("en", "ru"):
            text = (WEB / f"{table}-words-{language}.js").read_text()
            spoken[table, language] = set(re.findall(r'^  "([^"]+)":', text, re.MULTILINE))
            assert len(spoken[table, language]) > 50
        assert spoken[table, "en"] == spoken[table, "ru"]
    at_once = set(re.findall(r'data-say(?:-label|-hint)?="([^"]+)"', (WEB / "index.html").read_text()))
    later: set[str] = set()
    for name in ASSETS:
        if name.endswith(".js") and not name.startswith(("page-words", "dialog-words", "upload")):
            said = re.findall(r'\bsay\("([^"]+)"', (WEB / name).read_text())
            (later if name in WITH_DIALOGS else at_once).update(said)
    assert at_once <= spoken["page", "en"]
    assert later <= spoken["page", "en"] | spoken["dialog", "en"]


def test_icons_that_are_used_are_drawn_in_the_page() -> None:
    drawn = set(re.findall(r'<symbol id="icon-([a-z]+)"', (WEB / "index.html").read_text()))
    used: set[str] = set(re.findall(r'href="#icon-([a-z]+)"', (WEB / "index.html").read_text()))
    for path in WEB.glob("*.js"):
        used |= set(re.findall(r"""\bicon(?:Button)?\("([a-z]+)\"""", path.read_text()))
    assert used <= drawn


def test_the_table_of_files_is_that_of_the_folder() -> None:
    assert list(routes.WEB_ASSETS) == ASSETS


def test_a_caller_is_told_who_it_is_and_what_it_may_do(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--anonymous", "read")
    token = make_token(daemon.store, "anna", "write", quota=1_000_000)
    told = httpx.get(f"{daemon.url}/v1/caller", headers=bearer(token)).json()
    assert told == {
        "owner": "anna",
        "permissions": ["write"],
        "quota": 1_000_000,
        "expires_at": None,
        "algorithm": "sha256",
    }
    root = make_token(daemon.store, "root", "admin", expires_at=now_milliseconds() + 3_600_000)
    told = httpx.get(f"{daemon.url}/v1/caller", headers=bearer(root)).json()
    assert (told["owner"], told["permissions"]) == ("root", ["read", "write", "delete", "admin"])
    assert re.fullmatch(r"20\d\d-.*Z", told["expires_at"])
    told = httpx.get(f"{daemon.url}/v1/caller").json()
    nobody = {"owner": None, "permissions": ["read"], "quota": None, "expires_at": None, "algorithm": "sha256"}
    assert told == nobody


def test_a_link_comes_as_a_qr_code_too_where_it_is_asked_for(client: httpx.Client) -> None:
    digest = client.post("/?name=a b.txt", content=b"linked", headers={"content-type": "text/plain"}).text
    address = f"/v1/files/{digest}/link"
    assert client.post(address, json={"qr": False}).json().keys() == {"url", "expires_at"}
    link = client.post(address, json={"expires_in": "1h", "qr": True}).json()
    assert link.keys() == {"url", "expires_at", "qr"}
    assert read_qr(link["qr"]) == link["url"]
    assert client.post(address, json={"qr": 1}).status_code == 400


def test_a_qr_code_holds_the_longest_name(client: httpx.Client) -> None:
    digest = client.post("/", params={"name": "ы" * 127}, content=b"long", headers={"content-type": "text/plain"}).text
    link = client.post(f"/v1/files/{digest}/link", content=json.dumps({"qr": True})).json()
    assert len(link["url"]) > 800
    assert read_qr(link["qr"]) == link["url"]


def read_qr(svg: str) -> str:
    """Return the text of a QR code that is drawn as lines of dark squares."""
    from PIL import Image, ImageDraw
    from zxingcpp import read_barcodes

    size = int(re.search(r'viewBox="0 0 (\d+) ', svg)[1])  # type: ignore[index]
    path = re.search(r'stroke="#000" d="([^"]+)"', svg)[1]  # type: ignore[index]
    scale = 6
    image = Image.new("L", (size * scale, size * scale), 255)
    draw = ImageDraw.Draw(image)
    x = y = 0.0
    for kind, numbers in re.findall(r"([MmhH])([-\d. ]+)", path):
        values = [float(number) for number in re.findall(r"-?[\d.]+", numbers)]
        if kind == "M":
            x, y = values
        elif kind == "m":
            x, y = x + values[0], y + values[1]
        else:
            end = x + values[0]
            draw.rectangle([x * scale, (y - 0.5) * scale, end * scale - 1, (y + 0.5) * scale - 1], fill=0)
            x = end
    (found,) = read_barcodes(image)
    return found.text
