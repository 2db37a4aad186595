"""QR codes: an address that a phone reads off another screen."""

from io import BytesIO


def qr_svg(text: str) -> str:
    """Return a text of up to 2,900 bytes as a QR code: an SVG image without a size of its own. Takes milliseconds.

    The code is black on white with the margin that readers need (ISO/IEC 18004), so that dark pages can show it too.
    """
    # the library takes longer to import than the rest of the API, and is seldom asked for
    import segno

    image = BytesIO()
    segno.make(text, error="l", micro=False).save(
        image,
        kind="svg",
        border=4,
        dark="#000",
        light="#fff",
        xmldecl=False,
        omitsize=True,
        svgclass=None,
        lineclass=None,
    )
    return image.getvalue().decode().strip()
