"""The pages of the documentation site: which files they are made from, and the language of each. mkdocs.yml names this file.

Inside mkdocs a page has its path in the repository as its name: `docs/training.md`, `README.md`. A relative link therefore
means the same on the site as in the repository. Besides docs/, the site has each file that one of its pages links to.
A file that is no Markdown, such as a script, is shown as a page with its text.
"""

import logging
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\(([^()\s#]+)(?:#[^()\s]*)?\)")
CODE = {
    ".cff": "yaml",
    ".py": "python",
    ".sh": "bash",
    ".toml": "toml",
    ".txt": "text",
    ".yaml": "yaml",
    ".yml": "yaml",
    "": "text",
}
"""The endings of files that are shown as a page, and their languages."""
CHINESE = ".zh-CN.md"


class Code(File):
    """A file that is no Markdown, as a page that shows it."""

    def is_documentation_page(self) -> bool:
        return True

    @property
    def content_string(self) -> str:
        path = ROOT / self.src_uri
        fence = "~" * 8
        return (
            f"# {path.name}\n\n{fence}{CODE[path.suffix]} title={self.src_uri!r}\n{path.read_text('utf-8')}\n{fence}\n"
        )


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make the anchors of headings as GitHub does, also in Chinese, and silence the messages of jieba."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    logging.getLogger("jieba").setLevel(logging.WARNING)
    return config


def linked(page: str) -> Iterator[str]:
    """Yield the repository paths of the files that a page links to. page: its own repository path."""
    text = re.sub(r"^ *```.*?^ *```$", "", (ROOT / page).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in LINK.findall(text):
        path = normpath(PurePosixPath(page).parent / target)
        if "://" not in target and not path.startswith("..") and (ROOT / path).is_file():
            yield path


def repository_file(path: str, config: MkDocsConfig) -> File:
    """Return a file of the repository as a file of the site."""
    is_markdown = path.endswith(".md")
    is_code = not is_markdown and not path.startswith("docs/") and PurePosixPath(path).suffix in CODE
    place = path.removeprefix("docs/").removesuffix(".md") + ".html" * (is_markdown or is_code)
    inclusion = InclusionLevel.NOT_IN_NAV if is_code else InclusionLevel.UNDEFINED
    kind = Code if is_code else File
    return kind(path, str(ROOT), config.site_dir, config.use_directory_urls, dest_uri=place, inclusion=inclusion)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Name the files of docs/ by their repository paths, and add the files that they link to."""
    theme = [file for file in files if file.src_dir != config.docs_dir]
    todo = [
        f"docs/{file.src_uri}" for file in files if file.src_dir == config.docs_dir and file.inclusion.is_included()
    ]
    found: dict[str, File] = {}
    while todo:
        path = todo.pop()
        if path not in found:
            found[path] = repository_file(path, config)
            todo += linked(path) if path.endswith(".md") else []
    return Files([*theme, *(found[path] for path in sorted(found))])


def counterpart(path: str, language: str) -> str:
    """Return the repository path of the same page in a language, whether it exists or not."""
    return path.removesuffix(CHINESE).removesuffix(".md") + (CHINESE if language == "zh" else ".md")


def on_page_context(context: dict[str, Any], page: Page, config: MkDocsConfig, nav: Navigation) -> dict[str, Any]:
    """Set the language of the page, and let the choice of languages lead to the same page, or else to the start page."""
    urls = {file.src_uri: file.url for file in context["pages"]}
    for choice in config.extra["alternate"]:
        start = counterpart("docs/index.md", choice["lang"])
        choice["link"] = urls.get(counterpart(page.file.src_uri, choice["lang"]), urls[start])
    config.theme["language"] = "zh" if page.file.src_uri.endswith(CHINESE) else "en"
    return context
