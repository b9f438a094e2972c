"""The licence texts of what is linked into the library, from the sources that cargo built it of."""

import importlib.util
import json
import re
import subprocess
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXTS = re.compile(r"^(licen[cs]e|copying|notice|unlicense|copyright)", re.IGNORECASE)


def of_dependencies(target: str) -> str:
    """Each text once, with the crates that it is of, by name.

    Raises `RuntimeError` if a crate has none and its licence has a text that must be given.
    """
    crates = defaultdict(list)
    for package in linked(target):
        name = f"{package['name']} {package['version']} ({package['license'] or 'see its text'})"
        for text in texts(package):
            crates[text].append(name)
    for name, text in runtimes():
        crates[text].append(name)
    head = "litestream_vfs is licensed under the Apache License 2.0. Linked into it is what stands below, under these licences.\n"
    parts = [f"{'=' * 100}\n{chr(10).join(sorted(names))}\n{'-' * 100}\n\n{text.strip()}\n" for text, names in crates.items()]
    return "\n".join([head, *sorted(parts)])


def linked(target: str) -> list[dict]:
    """The packages that the library is linked of: no build scripts, no tests, no procedural macros of the compiler."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    found, waiting = set(), [metadata["resolve"]["root"]]
    while waiting:
        for dependency in nodes[waiting.pop()]["deps"]:
            is_linked = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            is_macro = any("proc-macro" in part["kind"] for part in packages[dependency["pkg"]]["targets"])
            if is_linked and not is_macro and dependency["pkg"] not in found:
                found.add(dependency["pkg"])
                waiting.append(dependency["pkg"])
    return [packages[name] for name in sorted(found)]


def texts(package: dict) -> list[str]:
    """The texts that lie in the package's folder; of what it brings along too, such as the sources of a C library."""
    folder = Path(package["manifest_path"]).parent
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and TEXTS.match(path.name)
             and path.suffix.lower() not in (".rs", ".py", ".go", ".c", ".h", ".pl")]
    found = [path.read_text(errors="replace").replace("\r\n", "\n") for path in files]
    return found or [own_text(package)]


def runtimes() -> list[tuple[str, str]]:
    """What the compilers add: Rust's standard library, and the unwinder of zig where that links."""
    found = [("Rust's standard library (MIT OR Apache-2.0)", MIT.format(holder="The Rust Project Contributors"))]
    if spec := importlib.util.find_spec("ziglang"):
        folder = Path(spec.origin).parent
        for name, path in (("zig's compiler-rt", "LICENSE"), ("LLVM's libunwind", "lib/libunwind/LICENSE.TXT")):
            found.append((name, (folder / path).read_text()))
    return found


def own_text(package: dict) -> str:
    """The text of a crate whose package has none: that of the MIT licence, with its authors, or that of the Apache licence."""
    licence = package["license"] or ""
    if "MIT" in licence:
        return MIT.format(holder=", ".join(package["authors"]) or f"the authors of {package['name']}")
    if "Apache-2.0" in licence:
        return (ROOT / "LICENSE").read_text()
    raise RuntimeError(f"{package['name']} {package['version']} has no licence text, and its licence has none here: "
                       f"write what stands in its place ({licence}, {package['repository']})")


MIT = """\
Copyright (c) {holder}

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software
is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE,
ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
