# shellcheck shell=bash
# Sourced by the other scripts: makes ROOT/.venv with the tested versions and activates it.
#   PYTHON   interpreter to make it with (default: python3); 3.11 or 3.12
# Usage: source scripts/venv.sh EXTRAS   (for example: test,prompts)
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$ROOT/.venv"
PYTHON="${PYTHON:-python3}"
extras="$1"

if ! "$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
    echo "error: $PYTHON is not Python 3.11 or 3.12; set PYTHON to one that is" >&2
    exit 1
fi
if [ ! -x "$VENV/bin/pip" ]; then
    echo "== making a virtual environment in $VENV"
    rm -rf "$VENV"
    if ! "$PYTHON" -m venv "$VENV"; then
        rm -rf "$VENV"
        echo "error: no virtual environment; on Debian: apt-get install python3-venv" >&2
        exit 1
    fi
fi
# shellcheck source=/dev/null
source "$VENV/bin/activate"
stamp="$VENV/.installed-$extras"
wanted="$(cat "$ROOT/setup.py" "$ROOT/constraints.txt" | sha256sum)"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "== installing fbk_xattn[${extras}] with the tested versions (two minutes or so)"
    pip install --disable-pip-version-check \
        -c "$ROOT/constraints.txt" -e "${ROOT}[${extras}]"
    echo "$wanted" > "$stamp"
fi
