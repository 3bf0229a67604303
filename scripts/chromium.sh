# shellcheck shell=bash
# Sourced by scripts/test.sh: puts Debian's chromium and its driver there for the tests of the
# interactive report, which are skipped without them. Twelve seconds on a fresh machine.
if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then
    echo "== installing chromium for the browser tests"
    log="$(mktemp)"
    if ! { [ "$(id -u)" = 0 ] && apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            chromium chromium-driver; } > "$log" 2>&1; then
        echo "note: no chromium here, browser tests are skipped; as root on Debian:" \
             "apt-get install chromium chromium-driver ($(grep -m1 '^E:' "$log" || echo 'needs root and apt-get'))" >&2
    fi
    rm -f "$log"
fi
