"""What a page needs from elsewhere: it must be nothing."""

import re

from bs4 import BeautifulSoup


def remote_parts(html: str) -> list[str]:
    """Everything that a page would fetch from elsewhere, and every script and trace of a content network."""
    soup = BeautifulSoup(html, "html.parser")
    found = [str(tag)[:120] for tag in soup.find_all("script")]
    for tag in soup.find_all(["link", "img", "iframe", "source", "video", "audio", "embed", "object", "use"]):
        for attribute in ("src", "href", "srcset", "data"):
            if re.match(r"\s*(https?:)?//", tag.get(attribute, "")):
                found.append(str(tag)[:120])
    visible = "".join(str(tag) for tag in soup.find_all(["head", "style"]))
    found += re.findall(r"url\(\s*['\"]?(?:https?:)?//[^)]*\)|@import[^;]*", visible)
    found += re.findall(r".{0,30}\bcdn\b.{0,30}|cdnjs|unpkg|jsdelivr|MathJax|require\.js", html)
    return found
