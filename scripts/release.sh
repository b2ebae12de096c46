#!/usr/bin/env bash
# Build a release and try it: an sdist, the wheel made from it, and a fresh environment for each Python.
#
#     scripts/release.sh [FOLDER]
#
# FOLDER, dist by default, gets both files. Each of PYTHONS ("3.11 3.12 3.13" by default) is looked for on the PATH,
# among pyenv's, and with uv, which fetches it; one that can't be had is skipped, with a word. Nothing is published.
set -euo pipefail
cd "$(dirname "$0")/.."
dist=$(mkdir -p "${1:-dist}" && cd "${1:-dist}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '\n== %s\n' "$*"; }

# The files under version control alone, so that nothing that lies about gets into a release.
say "sdist and wheel"
mkdir "$work/source"
git archive HEAD | tar -x -C "$work/source"
python3 -m venv "$work/build"
"$work/build/bin/pip" install --quiet build twine
"$work/build/bin/python" -m build --outdir "$work/dist" "$work/source" >"$work/build.log" || { cat "$work/build.log"; exit 1; }
"$work/build/bin/twine" check --strict "$work"/dist/*
sdist=$(echo "$work"/dist/*.tar.gz)
wheel=$(echo "$work"/dist/*.whl)

say "the sdist has what a packager needs"
tar -tzf "$sdist" | sed 's,^[^/]*/,,' | sort >"$work/sdist.txt"
git archive HEAD | tar -t | grep -v '/$' | grep -Ev '^\.' | sort >"$work/tree.txt"
missing=$(comm -13 "$work/sdist.txt" "$work/tree.txt")
if [ -n "$missing" ]; then
    echo "not in the sdist:" "$missing"
    exit 1
fi
wc -l <"$work/tree.txt" | xargs printf 'all %s files of the repository\n'

is_python() {
    "$2" -c "import sys; sys.exit(sys.version_info[:2] != tuple(map(int, '$1'.split('.'))))" 2>/dev/null
}

# A name on the PATH may be a shim of pyenv that starts nothing, so each is tried.
find_python() {
    local found
    while read -r found; do
        is_python "$1" "$found" && echo "$found" && return
    done < <(
        type -ap "python$1"
        printf '%s\n' "$HOME/.pyenv/versions/$1".*/bin/python
    )
    command -v uv >/dev/null && uv python install --quiet "$1" 2>/dev/null && uv python find "$1"
}

# README's first command, as it stands there.
first=$(grep -om1 'causalprune run [^&`]*' README.md)
tried=0
for version in ${PYTHONS:-3.11 3.12 3.13}; do
    if ! python=$(find_python "$version"); then
        say "Python $version: no interpreter, skipped"
        continue
    fi
    say "Python $version: $("$python" --version 2>&1), $python"
    "$python" -m venv "$work/$version"
    # The extra as well: its name and its versions are a part of the release.
    "$work/$version/bin/pip" install --quiet "$wheel[plots]"
    mkdir "$work/run-$version"
    (
        cd "$work/run-$version"
        PATH="$work/$version/bin:$PATH"
        echo "$first"
        $first --quiet
        causalprune info run >/dev/null
        causalprune export --format onnx --help >/dev/null
        causalprune report --quiet >/dev/null
        python - <<'PYTHON'
from importlib.metadata import version
from importlib.resources import files

import causalprune
import causalprune_cli

assert files("causalprune").joinpath("py.typed").is_file()
assert "site-packages" in causalprune.__file__
assert causalprune.Store.open("run/iteration-000/trajectory.zarr").recording().num_rows > 0
assert "<h1>" in open("run/report/index.html", encoding="utf-8").read()
print("causalprune", version("causalprune"), "imports, runs, and is typed")
PYTHON
    )
    tried=$((tried + 1))
    rm -rf "${work:?}/$version"
done
[ "$tried" -gt 0 ] || { echo "no Python to try the wheel with"; exit 1; }
cp "$sdist" "$wheel" "$dist"
say "tried with $tried of the Pythons: $dist/$(basename "$sdist"), $(basename "$wheel")"
