"""Files of each kind that the page can show, made on the spot: pictures, a tone, a clip, a document."""

import base64
import io
import math
import struct
import wave
from dataclasses import dataclass

import httpx
from PIL import Image, ImageDraw
from playwright.sync_api import Page


@dataclass(frozen=True)
class Made:
    """A file that was made, before it is stored anywhere."""

    name: str
    type: str
    body: bytes

    def store(self, url: str, headers: dict[str, str] | None = None, **query: str) -> str:
        """Upload it; return its hash."""
        answer = httpx.post(
            f"{url}/v1/files", params={"name": self.name, **query}, content=self.body, timeout=30,
            headers={"content-type": self.type, **(headers or {})},
        )  # fmt: skip
        answer.raise_for_status()
        return str(answer.json()["hash"])


def picture(name: str, hue: int, *, width: int = 480, height: int = 320) -> Made:
    """Return a PNG: hills before a low sun, in the colours around ``hue`` (degrees)."""
    image = Image.new("RGB", (width, height))
    pencil = ImageDraw.Draw(image)
    for y in range(height):
        pencil.line((0, y, width, y), _color(hue + 40 * y / height, 55, 88 - 22 * y / height))
    left, top, radius = width * (0.3 + hue % 90 / 200), height * 0.42, height / 8
    pencil.ellipse((left - radius, top - radius, left + radius, top + radius), _color(48, 90, 92))
    for layer in range(4):
        line = [
            (x, height * (0.5 + layer / 8) + height / 12 * math.sin(x / width * (4 + layer) + hue + 2 * layer))
            for x in range(0, width + 8, 8)
        ]
        pencil.polygon([(0, height), *line, (width + 8, height)], _color(hue + 30, 35, 55 - 11 * layer))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return Made(name, "image/png", buffer.getvalue())


def _color(hue: float, saturation: float, lightness: float) -> str:
    return f"hsl({hue % 360:.0f}, {saturation:.0f}%, {lightness:.0f}%)"


def tone(name: str, *, hertz: float = 440, seconds: float = 0.5) -> Made:
    """Return a WAV file with one tone that fades."""
    rate = 8000
    count = int(rate * seconds)
    samples = [
        int(12000 * (1 - index / count) * math.sin(2 * math.pi * hertz * index / rate)) for index in range(count)
    ]
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(struct.pack(f"<{count}h", *samples))
    return Made(name, "audio/wav", buffer.getvalue())


def document(name: str, *lines: str) -> Made:
    """Return a PDF of one page with lines of ASCII text."""
    shown = " ".join(f"({line}) Tj 0 -28 Td" for line in lines)
    stream = f"BT /F 18 Tf 60 740 Td {shown} ET".encode("ascii")
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        b" /Resources << /Font << /F 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    body = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    start = len(body)
    body += b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table)
    body += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return Made(name, "application/pdf", bytes(body))


_RECORD = """
async () => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 320, height: 180 });
  const pencil = canvas.getContext("2d");
  const recorder = new MediaRecorder(canvas.captureStream(25), { mimeType: "video/webm" });
  const pieces = [];
  recorder.addEventListener("dataavailable", (event) => pieces.push(event.data));
  const ended = new Promise((resolve) => recorder.addEventListener("stop", resolve));
  recorder.start();
  for (let step = 0; step < 15; step += 1) {
    pencil.fillStyle = `hsl(${200 + step * 6} 60% 45%)`;
    pencil.fillRect(0, 0, 320, 180);
    pencil.fillStyle = "white";
    pencil.fillRect(step * 20, 70, 40, 40);
    await new Promise((resolve) => setTimeout(resolve, 40));
  }
  recorder.stop();
  await ended;
  const bytes = new Uint8Array(await new Blob(pieces).arrayBuffer());
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}
"""


def clip(name: str, page: Page) -> Made:
    """Return a WebM video of half a second, which a browser's empty page records."""
    return Made(name, "video/webm", base64.b64decode(page.evaluate(_RECORD)))


def text(name: str, body: str, kind: str = "text/plain") -> Made:
    """Return a text in UTF-8."""
    return Made(name, kind, body.encode())
