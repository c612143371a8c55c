# What the scripts of the lifecycle events have in common. They source it.
# shellcheck shell=sh

RELEASES=${AWSHA_RELEASES:-/opt/awsha-releases} # a virtual environment for each deployment
LINK=${AWSHA_LINK:-/usr/bin/awsha}              # what units, keepalived and people call
UNITS=${AWSHA_UNITS:-/etc/systemd/system}
KEEPALIVED=${AWSHA_KEEPALIVED:-/etc/keepalived/keepalived.conf}
WAIT_S=${AWSHA_WAIT_S:-180} # for the pair to be well
LOOK_S=${AWSHA_LOOK_S:-2}   # between two looks
RECENT_S=3600               # a takeover that is not older belongs to this deployment
RELEASE=$RELEASES/${DEPLOYMENT_ID:?is set by the CodeDeploy agent}

say() {
    echo "awsha upgrade: $*"
}

die() {
    say "$*" >&2
    exit 1
}

in_use() { # the virtual environment of the version that runs
    dirname "$(dirname "$(readlink -f "$LINK")")"
}

read_json() { # read_json PROGRAM [WORD]: in Python, where `told` is the document on standard input
    python3 -c "import json, sys, time; told = json.load(sys.stdin); $1" "${2:-}"
}

findings() { # the codes that `awsha check` finds; it ends with 1 when there are any
    timeout 120 "$LINK" check --json | read_json 'print(*sorted({f["code"] for f in told["findings"]}))'
}

served() { # the groups that this node serves
    timeout 60 "$LINK" status --json | read_json 'print(*[g["name"] for g in told["groups"] if g["serving"]])'
}

node() { # this node's name
    timeout 60 "$LINK" status --json | read_json 'print(told["node"])'
}

took_over_just_now() { # took_over_just_now GROUP
    timeout 60 "$LINK" history --json --group "$1" | read_json '
taken = [t for t in told["transitions"] if t["goal"] == "master" and t["serving_at"] is not None]
newest = max((t["began"] + t["serving_at"] for t in taken), default=0)
sys.exit(time.time() - newest > float(sys.argv[1]))' "$RECENT_S"
}

is_well() { # nothing is wrong here, and the only thing to be said of the peer is that its version differs
    found="no answer of awsha check"
    found=$(findings) || return 1
    case $found in
        "" | peer-version) ;;
        *) return 1 ;;
    esac
    timeout 60 "$LINK" status >/dev/null 2>&1 || {
        found="awsha status is not OK"
        return 1
    }
}

wait_until_well() { # and leave what was found in `found`
    end=$(($(date +%s) + WAIT_S))
    until is_well; do
        if [ "$(date +%s)" -ge "$end" ]; then
            say "not well after $WAIT_S s: $found" >&2
            return 1
        fi
        sleep "$LOOK_S"
    done
}

# The next three run where the shell does not look at failures by itself: they chain their steps.

install_units() { # install_units VENV: the units that came with its wheel
    share=$1/share/awsha/systemd
    (cd "$share" && find . -type f) | while IFS= read -r unit; do
        install -D -m 644 "$share/$unit" "$UNITS/$unit" || exit 1
    done && timeout 60 systemctl daemon-reload
}

start_agent() { # start_agent VENV: moves nothing that is held
    ln -sfn "$1/bin/awsha" "$LINK.new" && mv -T "$LINK.new" "$LINK" &&
        install_units "$1" && timeout 120 systemctl restart awsha-agent
}

use_keepalived_conf() { # use_keepalived_conf FILE: in one step, and only when it is another one
    cmp -s "$1" "$KEEPALIVED" || {
        install -m 644 "$1" "$KEEPALIVED.new" && mv "$KEEPALIVED.new" "$KEEPALIVED" &&
            timeout 60 systemctl reload keepalived
    }
}

go_back() { # to what ran before this deployment
    say "going back to $(cat "$RELEASE/before")" >&2
    start_agent "$(cat "$RELEASE/before")" || say "the agent of the old version does not start" >&2
    use_keepalived_conf "$RELEASE/keepalived.before" || say "keepalived does not take its old configuration" >&2
    wait_until_well || say "the old version is not well either: docs/runbook.md" >&2
}
