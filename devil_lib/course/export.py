"""Offline pages: a lesson as one HTML file without a script, its formulas as MathML, its pictures inside."""

from __future__ import annotations

import base64
import mimetypes
import os
import re
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import latex2mathml.commands
import latex2mathml.converter
import nbformat
from bs4 import BeautifulSoup
from jinja2 import Environment, FileSystemLoader
from latex2mathml.symbols_parser import convert_symbol
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter

TEMPLATES = Path(__file__).parent / "templates"
_WIDGET = "application/vnd.jupyter.widget-view+json"
_MATHML = "{http://www.w3.org/1998/Math/MathML}"
_INLINE = re.compile(r"(?<![$\\])\$(?=\S)([^$\n]+?)(?<=\S)(?<![$\\])\$(?!\d)")
_RELATIONS = {"~": "∼", ";": ";", ":": ":"}
_VARIANTS = {
    "script": "SCRIPT",
    "double-struck": "DOUBLE-STRUCK",
    "bold": "BOLD",
    "bold-italic": "BOLD ITALIC",
    "fraktur": "FRAKTUR",
    "sans-serif": "SANS-SERIF",
    "monospace": "MONOSPACE",
}


def _commands(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str) and value.startswith("\\"):
            yield value
        elif isinstance(value, Mapping):
            yield from _commands((*value.keys(), *value.values()))
        elif isinstance(value, tuple | list | set | frozenset):
            yield from _commands(value)


# The commands that the converter knows, which it lists nowhere as a whole.
_COMMANDS = frozenset(_commands(vars(latex2mathml.commands).values()))


class ExportError(ValueError):
    """A formula that cannot be typeset, or a picture or sound that cannot be embedded; the message names it."""


@dataclass(frozen=True)
class Link:
    """A link to a neighbouring page: its address and text."""

    href: str
    text: str


def typeset(latex: str, display: bool = False) -> str:
    """A LaTeX formula as a MathML element, with its source as the text alternative.

    Raises:
        ExportError: unbalanced braces, or a command that is not known; the message names the formula.
    """

    def refuse(reason: str) -> ExportError:
        return ExportError(f"the formula ${latex.strip()}$ cannot be typeset: {reason}")

    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", latex.replace(r"\\", "")):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            break
    if depth:
        raise refuse("its braces are not balanced")
    # The converter passes over a command that it does not know, or takes the known beginning of its name.
    source = re.sub(r"\\(begin|end)\{aligned\}", r"\\\1{align*}", latex.replace(r"\operatorname*", r"\operatorname"))
    environments = (f"\\{name}" for name in re.findall(r"\\begin\{([^}]*)\}", source))
    unknown = {
        command
        for command in (*re.findall(r"\\[A-Za-z]+", source), *environments)
        if command not in _COMMANDS and convert_symbol(command) is None
    }
    if unknown:
        raise refuse(f"{', '.join(sorted(unknown))} is not known")
    try:
        mathml = latex2mathml.converter.convert(source.strip(), display="block" if display else "inline")
        tree = ElementTree.fromstring(mathml)
    except Exception as error:
        # The converter raises many kinds, one per construct, and an `&` outside a table is not XML.
        raise refuse(f"{type(error).__name__} {error}") from error
    left = [text for element in tree.iter() for text in re.findall(r"\\\S+", element.text or "")]
    if left:
        raise refuse(f"{', '.join(left)} is left over")
    if any(not (element.text or len(element)) for element in tree.iter(f"{_MATHML}mo")):
        raise refuse("an operator's name may hold letters only (\\argmin is a command of its own)")
    for element in tree.iter(f"{_MATHML}mi"):
        if element.text in _RELATIONS:
            # As an identifier it would stand without the room that a relation or a separator has.
            element.tag, element.text = f"{_MATHML}mo", _RELATIONS[element.text]
        # Browsers draw letters in script or double-struck only as characters of their own.
        style = _VARIANTS.get(element.attrib.get("mathvariant", ""))
        if style:
            element.text = "".join(_styled(character, style) for character in element.text or "")
            del element.attrib["mathvariant"]
    for under in tree.iter(f"{_MATHML}munder"):
        # Without a mathematical font a browser does not stretch the brace; a line is drawn everywhere.
        if len(under) == 2 and under[1].text == "\u23df":
            under.tag = f"{_MATHML}mrow"
            under.set("class", "underbrace")
            del under[1]
    tree.set("alttext", " ".join(latex.split()))
    ElementTree.register_namespace("", _MATHML.strip("{}"))
    return ElementTree.tostring(tree, encoding="unicode")


def _styled(character: str, style: str) -> str:
    """A letter in another style: "L", SCRIPT -> "ℒ"; a letter that has none stays as it is."""
    name = unicodedata.name(character, "").removeprefix("LATIN ").removeprefix("GREEK ").replace("LETTER ", "")
    for candidate in (f"MATHEMATICAL {style} {name}", f"{style} {name}"):
        try:
            return unicodedata.lookup(candidate)
        except KeyError:
            continue
    return character


class _Renderer(IPythonRenderer):
    """Markdown as nbconvert renders it, but with formulas as MathML; code spans and fences never come here."""

    def inline_math(self, body: str) -> str:
        return typeset(body)

    def block_math(self, body: str) -> str:
        return typeset(body, display=True)

    def latex_environment(self, name: str, body: str) -> str:
        return typeset(f"\\begin{{{name}}}{body}\\end{{{name}}}", display=True)

    def block_mermaidjs(self, code: str) -> str:
        raise ExportError("a Mermaid diagram needs a script that no offline page has: draw it as a picture")


class _PageExporter(HTMLExporter):
    """The body of a page: nbconvert's script-free `basic` template."""

    def __init__(self) -> None:
        super().__init__(template_name="basic")
        self.exclude_input_prompt = True
        self.exclude_output_prompt = True

    def default_filters(self) -> Any:
        yield from super().default_filters()
        yield ("markdown2html", _markdown)


def _markdown(source: str) -> str:
    return MarkdownWithMath(renderer=_Renderer(escape=False, exclude_anchor_links=True)).render(source)


def export_page(
    executed: Path,
    page: Path,
    *,
    source_folder: Path,
    title: str,
    summary: str = "",
    before: Link | None = None,
    after: Link | None = None,
) -> Path:
    """Write an executed notebook as one HTML file that opens without a network.

    Args:
        executed: the executed notebook.
        page: the HTML file to write.
        source_folder: the folder of the notebook's source, to which its relative links and images refer.
        title: the page's title.
        summary: a line under the course's name (outcome and minutes).
        before, after: the neighbouring lessons' pages.

    Raises:
        ExportError: a formula that cannot be typeset; the message names it and the cell.
        FileNotFoundError: a picture or sound that a Markdown cell shows is missing.
    """
    notebook = nbformat.read(executed, as_version=4)
    _without_widgets(notebook)
    _without_banners(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            try:
                _markdown(cell.source)
            except ExportError as error:
                raise ExportError(f"{executed.name}, cell {cell.id}: {error}") from error
    body, _ = _PageExporter().from_notebook_node(notebook)
    soup = BeautifulSoup(body, "html.parser")
    for script in soup.find_all("script"):
        script.decompose()
    _typeset_outputs(soup)
    _localise(soup, source_folder.resolve(), page.resolve().parent)
    html = render(
        "page.html.j2",
        title=title,
        summary=summary,
        before=before,
        after=after,
        body=str(soup),
        code_css=HtmlFormatter(style="default").get_style_defs(".highlight"),
    )
    page.write_text(html, encoding="utf-8")
    return page


def render(template: str, **values: Any) -> str:
    """One of the package's own page templates, with the style sheet inside."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(css=(TEMPLATES / "page.css").read_text("utf-8"), **values)


def _without_widgets(notebook: nbformat.NotebookNode) -> None:
    """Drop widget views and their state: a page has no kernel, and beside each widget stands its storyboard."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in map(_without_view, cell.outputs) if output is not None]
        for output in cell.outputs:
            data: Mapping[str, Any] = output.get("data", {})
            if "text/latex" in data and "text/html" not in data:
                output.data["text/html"] = typeset(data["text/latex"].strip().strip("$"), display=True)


def _without_banners(notebook: nbformat.NotebookNode) -> None:
    """Say where a lesson stopped in the page's own style, instead of papermill's headlines."""
    for cell in list(notebook.cells):
        if "papermill-error-cell-tag" in cell.metadata.get("tags", ()):
            if "stopped" in cell.source:
                cell.source = "**The lesson stopped here, because of the error below.**"
            else:
                notebook.cells.remove(cell)


def _without_view(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """An output without its widget view; None if nothing is left but the widget's Python representation."""
    if output.get("data", {}).pop(_WIDGET, None) is None:
        return output
    return output if set(output.data) - {"text/plain"} else None


def _typeset_outputs(soup: BeautifulSoup) -> None:
    """Formulas in captions and other HTML that cells put out, which JupyterLab typesets as well."""
    for area in soup.select(".output_html, .rendered_html figure, .rendered_html details"):
        for text in list(area.find_all(string=_INLINE)):
            if any(parent.name in ("pre", "code", "math", "style", "title") for parent in text.parents):
                continue
            parts = _INLINE.split(str(text))
            html = "".join(typeset(part) if i % 2 else escape(part, quote=False) for i, part in enumerate(parts))
            text.replace_with(*list(BeautifulSoup(html, "html.parser").contents))


def _localise(soup: BeautifulSoup, source: Path, target: Path) -> None:
    """Relative links: to other lessons' pages, or from where the page lies; pictures and sounds are put inside."""
    for shown in soup.find_all(["img", "audio", "source"], src=True):
        if shown["src"].startswith("data:"):
            continue
        if re.match(r"[a-z]+:", shown["src"]):
            kind = "picture" if shown.name == "img" else "sound"
            raise ExportError(f"the {kind} {shown['src']} is remote: an offline page cannot show it")
        file = source / shown["src"]
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        shown["src"] = f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
    for anchor in soup.find_all("a", href=True):
        href, _, fragment = anchor["href"].partition("#")
        if not href or re.match(r"[a-z]+:", href):
            continue
        if re.fullmatch(r"(\./)?[0-9][0-9]_\w+\.ipynb", href):
            new = Path(href).with_suffix(".html").as_posix()
        else:
            new = Path(os.path.relpath(source / href, target)).as_posix()
        anchor["href"] = new + (f"#{fragment}" if fragment else "")


def plain(markdown: str) -> str:
    """A title without its markup."""
    return BeautifulSoup(_markdown(markdown), "html.parser").get_text().strip()
