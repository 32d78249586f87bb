"""A page as a reader finds it: its tables by section, its addresses, and whether its tags are balanced."""

import base64
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Attributes:
    text: of everything but style and script. faults: of the tags.
    rows: (section, table) -> the rows, each a list of cells, header first; a cell's parts are joined by "|".
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.rows: dict[tuple[str, str], list[list[str]]] = {}
        self.data: dict[str, str] = {}  # of script, style, title, h1
        self.text, self.section, self.table = "", "", ""
        self.feed(source)
        self.close()
        self.faults += [f"<{tag}> is not closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append((tag, given))
        if len(given) != len(attrs):
            self.faults.append(f"<{tag}> has an attribute twice")
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.table = given.get("aria-label", "")
            self.rows.setdefault((self.section, self.table), [])
        elif tag == "tr":
            self.rows[self.section, self.table].append([])
        elif tag in ("th", "td"):
            self.rows[self.section, self.table][-1].append("")
        elif tag == "h2":
            self.section = ""
        elif tag == "small" and "td" in self.open:
            self.rows[self.section, self.table][-1][-1] += "|"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes something else")

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        self.data[inside] = self.data.get(inside, "") + data
        if inside in ("script", "style"):
            return
        self.text += data
        if inside == "h2":
            self.section += data
        if "th" in self.open or "td" in self.open:
            self.rows[self.section, self.table][-1][-1] += data.replace("\xa0", " ").strip("\n")

    def all(self, tag: str) -> list[dict[str, str]]:
        return [given for found, given in self.tags if found == tag]

    def addresses(self) -> list[str]:
        names = ("href", "src", "xlink:href", "srcset", "action", "data", "poster")
        return [given[name] for _, given in self.tags for name in names if name in given]

    def download(self, begin: str, end: str = ".csv") -> str:
        """The text behind the first link whose file name begins and ends so."""
        names = {a["download"]: a["href"] for a in reversed(self.all("a")) if "download" in a}
        address = next(names[name] for name in reversed(names) if name.startswith(begin) and name.endswith(end))
        return base64.b64decode(address.partition(";base64,")[2]).decode()
