"""Hooks of the documentation site: pages from outside docs/, the command-line reference, links.

Links in Markdown files are written as GitHub resolves them. Here those that leave docs/ are turned into
links to the page of the site, or to the file in the repository where the site has no page for it.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = "https://github.com/carat-emotion/carat/blob/main"
CLI = "reference/cli.md"
ADDED = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "results/calibration.md": "results/calibration.md",
    "results/clips.md": "results/clips.md",
    "results/english_text.md": "results/english_text.md",
    "results/leaderboard.md": "results/leaderboard.md",
    "results/mosei_reduced.md": "results/mosei_reduced.md",
    "results/mosei_text.md": "results/mosei_text.md",
    "results/performance.md": "results/performance.md",
    "results/ablation_synthetic/ablation.md": "results/ablation_synthetic/ablation.md",
    "results/ablation_synthetic/ablation.svg": "results/ablation_synthetic/ablation.svg",
}
"""Files outside docs/ that the site has: its path by theirs."""
CLI_HEAD = """# Command line

Generated from the commands: `carat --help` and `carat COMMAND --help` show the same. For `train`, `sweep` and
`ablate` this page lists the options of CARAT; with `--method NAME` before `--help`, those of that method.
"""
FENCE = re.compile(r"^(```.*?^```)", flags=re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the files from outside docs/ and the command-line reference."""
    for source, target in ADDED.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    files.append(File.generated(config, CLI, content=command_line()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links that leave docs/."""
    source = {target: source for source, target in ADDED.items()}.get(
        page.file.src_uri, f"docs/{page.file.src_uri}"
    )
    return rewrite_links(markdown, source, page.file.src_uri)


def rewrite_links(markdown: str, source: str, target: str) -> str:
    """Markdown with links that work in the site.

    Args:
        markdown: of a page.
        source: path of its file in the repository.
        target: path of its page in the site.
    """

    def rewritten(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[2]))
        if path.startswith("docs/"):
            path = path.removeprefix("docs/")
        elif path in ADDED:
            path = ADDED[path]
        else:
            return f"{link[1]}{REPOSITORY}/{path}{link[3]}"
        return f"{link[1]}{posixpath.relpath(path, posixpath.dirname(target) or '.')}{link[3]}"

    parts = FENCE.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(rewritten, part) for part in parts)


def command_line() -> str:
    """The reference of all commands and options, as `--help` shows them."""
    sys.path.insert(0, str(ROOT / "src"))  # the code beside this file, not another installed carat
    from carat.cli import app

    reference: str = app.generate_docs(output_format="markdown")
    first = reference.index(
        "\n## ", reference.index("## Table of Contents") + 1
    )  # the site has a table of its own
    return CLI_HEAD + reference[first:]
