"""Small PDF files for tests: text at given places, bookmarks, page labels, pictures, a password."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Bookmark", "Page", "Text", "pdf_file", "prose"]

_FONTS = ("Helvetica", "Helvetica-Bold", "Courier")


class Text(NamedTuple):
    """A line of text; `x` and `y` are in points from the page's lower left corner."""

    x: float
    y: float
    text: str
    size: float = 10.0
    font: str = "Helvetica"
    """One of Helvetica, Helvetica-Bold and Courier."""


class Bookmark(NamedTuple):
    """An entry of the outline; `level` counts from 1, `page` from 0."""

    title: str
    page: int
    level: int = 1
    y: float = 800.0


@dataclass(frozen=True)
class Page:
    """A page of 612 by 792 points."""

    texts: Sequence[Text] = ()
    rotate: int = 0
    picture: bool = False
    """True for a picture over the whole page."""


@dataclass
class _Objects:
    bodies: list[bytes] = field(default_factory=list)

    def add(self, body: str | bytes) -> int:
        self.bodies.append(body if isinstance(body, bytes) else body.encode("cp1252"))
        return len(self.bodies)

    def stream(self, data: bytes, entries: str = "") -> int:
        return self.add(f"<<{entries}/Length {len(data)}>>stream\n".encode() + data + b"\nendstream")


def prose(lines: Sequence[str], *, x: float = 72, y: float = 720, leading: float = 12, size: float = 10) -> list[Text]:
    """Lines one below the other; an empty one leaves a space of half a line."""
    texts = []
    for line in lines:
        if line:
            texts.append(Text(x, y, line, size))
            y -= leading
        else:
            y -= leading / 2
    return texts


def pdf_file(
    pages: Sequence[Page],
    *,
    outline: Sequence[Bookmark] = (),
    title: str | None = None,
    labels: str | None = None,
    password: bool = False,
    looped: bool = False,
) -> bytes:
    """A PDF of `pages`.

    `labels` is the /Nums array of the page labels. `password`: it opens with a password only. `looped`: the last
    bookmark's next one is the first.
    """
    made = _Objects()
    catalog, tree = made.add(b""), made.add(b"")
    fonts = "".join(
        f"/{name} {made.add(f'<</Type/Font/Subtype/Type1/BaseFont/{name}/Encoding/WinAnsiEncoding>>')} 0 R"
        for name in _FONTS
    )
    picture = made.stream(
        b"\x80", "/Type/XObject/Subtype/Image/Width 1/Height 1/ColorSpace/DeviceGray/BitsPerComponent 8"
    )
    kids = []
    for page in pages:
        content = made.stream(_content(page))
        kids.append(
            made.add(
                f"<</Type/Page/Parent {tree} 0 R/MediaBox[0 0 612 792]/Rotate {page.rotate}/Contents {content} 0 R"
                f"/Resources<</Font<<{fonts}>>/XObject<</Im {picture} 0 R>>>>>>"
            )
        )
    made.bodies[tree - 1] = f"<</Type/Pages/Count {len(kids)}/Kids[{' '.join(f'{k} 0 R' for k in kids)}]>>".encode()
    root = f"<</Type/Catalog/Pages {tree} 0 R"
    if outline:
        root += f"/Outlines {_outline(made, outline, kids, looped)} 0 R"
    if labels:
        root += f"/PageLabels<</Nums[{labels}]>>"
    made.bodies[catalog - 1] = f"{root}>>".encode()
    trailer = f"/Root {catalog} 0 R"
    if title:
        trailer += f"/Info {made.add(f'<</Title({_escaped(title)})>>')} 0 R"
    if password:
        keys = made.add(f"<</Filter/Standard/V 1/R 2/P -4/O<{'41' * 32}>/U<{'42' * 32}>>>")
        trailer += f"/Encrypt {keys} 0 R/ID[<{'00' * 16}><{'00' * 16}>]"
    return _file(made.bodies, trailer)


def _content(page: Page) -> bytes:
    drawn = ["q 612 0 0 792 0 0 cm /Im Do Q"] if page.picture else []
    drawn += [f"BT /{t.font} {t.size} Tf {t.x} {t.y} Td ({_escaped(t.text)}) Tj ET" for t in page.texts]
    return "\n".join(drawn).encode("cp1252")


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")


def _outline(made: _Objects, entries: Sequence[Bookmark], kids: Sequence[int], looped: bool) -> int:
    root = made.add(b"")
    numbers = [made.add(b"") for _ in entries]
    parents = [next((j for j in range(i - 1, -1, -1) if entries[j].level < e.level), -1) for i, e in enumerate(entries)]

    def children(of: int) -> list[int]:
        return [i for i, parent in enumerate(parents) if parent == of]

    def ends(of: int) -> str:
        own = children(of)
        return f"/First {numbers[own[0]]} 0 R/Last {numbers[own[-1]]} 0 R/Count {len(own)}" if own else ""

    for i, entry in enumerate(entries):
        siblings = children(parents[i])
        after = siblings.index(i) + 1
        following = siblings[after] if after < len(siblings) else siblings[0] if looped else None
        parent = root if parents[i] < 0 else numbers[parents[i]]
        made.bodies[numbers[i] - 1] = (
            f"<</Title({_escaped(entry.title)})/Parent {parent} 0 R/Dest[{kids[entry.page]} 0 R/XYZ 0 {entry.y} 0]"
            + (f"/Next {numbers[following]} 0 R" if following is not None else "")
            + ends(i)
            + ">>"
        ).encode("cp1252")
    made.bodies[root - 1] = f"<</Type/Outlines{ends(-1)}>>".encode()
    return root


def _file(bodies: Sequence[bytes], trailer: str) -> bytes:
    data = bytearray(b"%PDF-1.7\n")
    offsets = []
    for number, body in enumerate(bodies, 1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    table = len(data)
    data += f"xref\n0 {len(bodies) + 1}\n0000000000 65535 f \n".encode()
    data += b"".join(f"{offset:010} 00000 n \n".encode() for offset in offsets)
    data += f"trailer<</Size {len(bodies) + 1}{trailer}>>\nstartxref\n{table}\n%%EOF\n".encode()
    return bytes(data)
