"""What MkDocs runs while it builds the site: the reference pages name public names, the sources are elsewhere.

`::: facedistill.Model` on a page under reference/ becomes the place where that class is defined, as `_PUBLIC` in
`facedistill/__init__.py` has it. The package itself is not imported.
"""

import ast
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DIRECTIVE = re.compile(r"^::: facedistill\.(\w+)$", re.MULTILINE)


def public_names() -> dict[str, str]:
    """Return `_PUBLIC` of the package: every public name, and the module that it is imported from."""
    tree = ast.parse((ROOT / "src/facedistill/__init__.py").read_text("utf-8"))
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "_PUBLIC" for target in targets):
            return ast.literal_eval(node.value)  # type: ignore[attr-defined]
    raise ValueError("src/facedistill/__init__.py defines no _PUBLIC")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace each public name of a reference page by the module and name that mkdocstrings finds."""
    if not page.file.src_uri.startswith("reference/"):
        return markdown
    places = public_names()

    def directive(match: re.Match[str]) -> str:
        name = match[1]
        options = f"    options:\n      heading: facedistill.{name}\n      toc_label: {name}"
        return f"::: facedistill.{places[name]}.{name}\n{options}"

    return DIRECTIVE.sub(directive, markdown)
