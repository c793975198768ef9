#!/usr/bin/env bash
# The set-up on a machine that has nothing: a bare Debian made by debootstrap, what is committed
# here cloned into it, `make setup`, the libraries loaded, the models listed, a dry run planned.
# Needs root and a network; what pip and apt use outside, mirrors and certificates, they use inside.
#
#   tests/fresh_machine.sh [SUITE]
set -euo pipefail

REPOSITORY=$(cd "$(dirname "$0")/.." && pwd)
SUITE=${1:-bookworm}
CERTIFICATES=/etc/ssl/certs/ca-certificates.crt
ROOT=$(mktemp -d /var/tmp/hydrops-fresh.XXXXXX)
MOUNTED=()

say() { echo "fresh machine: $*" >&2; }

clean_up() {
    local place
    for ((place = ${#MOUNTED[@]} - 1; place >= 0; place--)); do
        umount --lazy "${MOUNTED[place]}" || true
    done
    # Whatever could not be unmounted is not ours to delete.
    rm -rf --one-file-system "$ROOT"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

bring() { # a folder of this machine, read-only, at the same place
    mkdir -p "$ROOT$1"
    mount --bind "$1" "$ROOT$1"
    MOUNTED+=("$ROOT$1")
    mount -o remount,bind,ro "$ROOT$1"
}

mirror() { # the first Debian archive in this machine's sources
    cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -v '^#' |
        grep -oE '(https?|file)://[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' '
}

inside() {
    local passed=()
    while IFS= read -r -d '' setting; do
        case $setting in PIP_*=* | *_proxy=* | *_PROXY=*) passed+=("$setting") ;; esac
    done < <(env -0)
    chroot "$ROOT" env -i HOME=/root LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        "${passed[@]}" "$@"
}

make_root() {
    command -v debootstrap >/dev/null || { apt-get update -qq && apt-get install -y -qq debootstrap; }
    debootstrap --variant=minbase --include=ca-certificates,git,make,python3,python3-venv \
        "$SUITE" "$ROOT" "$(mirror)" >"$ROOT.log" || { tail -n 20 "$ROOT.log" >&2; exit 1; }
    rm -f "$ROOT.log"
    mount -t proc proc "$ROOT/proc"
    MOUNTED+=("$ROOT/proc")
    mount --bind /dev "$ROOT/dev"
    MOUNTED+=("$ROOT/dev")
    cp /etc/resolv.conf /etc/hosts "$ROOT/etc/"
    cp "$CERTIFICATES" "$ROOT$CERTIFICATES"
}

bring_pip() { # its configuration, and the folders of this machine that it names
    local file folder
    for file in /etc/pip.conf /etc/xdg/pip /root/.config/pip /root/.pip; do
        [ ! -e "$file" ] || { mkdir -p "$ROOT$(dirname "$file")" && cp -rL "$file" "$ROOT$file"; }
    done
    # An index may point beside itself, so the whole of /opt/<name> comes for /opt/<name>/simple.
    while read -r folder; do
        [ ! -d "$folder" ] || bring "$folder"
    done < <({ env | grep '^PIP_'; cat "$ROOT"/etc/pip.conf "$ROOT"/etc/xdg/pip/* \
        "$ROOT"/root/.config/pip/* "$ROOT"/root/.pip/* 2>/dev/null; } |
        grep -oE '(file://|[= ])/[^/ ]+/[^/ ]+' | grep -oE '/[^/ ]+/[^/ ]+$' | sort -u |
        grep -vE '^/(etc|root|proc|dev)/')
}

say "a bare $SUITE from $(mirror)"
make_root
bring_pip
git clone --quiet --bare --no-hardlinks "$REPOSITORY" "$ROOT/srv/hydrops.git"
say "set-up"
inside bash -euc '
    cd /root
    git clone --quiet /srv/hydrops.git hydrops
    cd hydrops
    make setup
    .venv/bin/python -c "import hydrops.ingest, hydrops.register, hydrops.segment, hydrops.report"
    .venv/bin/hydrops models
    .venv/bin/snakemake --cores 2 --dry-run --quiet rules
'
say "it works"
