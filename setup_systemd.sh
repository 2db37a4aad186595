#!/usr/bin/env bash
# Writes a systemd unit for filestored into the working folder, and installs it only if told to.
set -euo pipefail

MARK='# filestored: written by setup_systemd.sh'
ROOT=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)

usage() {
    cat <<'EOF'
Usage: setup_systemd.sh [OPTION…]

Writes a hardened systemd unit for filestored into the working folder, and installs it only with your consent.

Settings of the daemon (`filestored run --help`); what is not given keeps filestored's default:
  --host ADDRESS         address to listen on
  --port PORT            port to listen on
  --log LEVEL            least serious log lines to write
  --listen NUMBER        length of the queue of clients waiting to connect
  --buffer SIZE          bytes read or written at a time
  --store FOLDER|URL     folder or bucket (s3://…, gs://…, az://…) the files are stored in; /var/lib/NAME by default
  --spool FOLDER         with a bucket, the folder for what is under way; /var/lib/NAME/spool by default
  --tls-cert FILE        certificate chain; readable by the user of --user, and not below /home, /root or /tmp
  --tls-key FILE         its private key, likewise
  --default              the defaults for all that is not given, which is so anyway

The unit:
  --service-name NAME    what the unit is called; filestored.service (--service_name is the same)
  --user NAME            user the daemon runs as; filestored, made when the unit is installed
  --program PATH         the command to run; by default /usr/local/bin/filestored, else that of this checkout, else the
                         one in PATH

How to go on:
  -y, --yes              ask nothing: write the unit, and install it only if --install says so
  --install              install and start it, too: needs root, or sudo
  --unit-dir FOLDER      where it is installed; /etc/systemd/system
  -h, --help             show this

Further settings go as FILESTORED_… lines into /etc/filestored/environment, which only root needs to read, and so do
secrets: FILESTORED_CATALOGUE with the password of PostgreSQL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of a bucket.
A unit of another name has a file of its own there, NAME.environment.
EOF
}

fail() { # status, what is wrong
    printf 'setup_systemd.sh: %s\n' "$2" >&2
    exit "$1"
}

agreed() { # question; no answer at all means no
    local answer=''
    [[ $yes == no ]] || return 0
    printf '%s (y/n) ' "$1"
    IFS= read -r answer || printf '\n'
    [[ $answer == [yY] || $answer == [yY][eE][sS] ]]
}

require_plain() { # what it is, value: what would mean something else in a unit is refused
    if [[ -z $2 || $2 == *[[:space:][:cntrl:]\"\'\\\$%\;]* ]]; then
        fail 2 "$1 '$2': it must not be empty, nor have blanks, quotes, or one of \\ \$ % ; in it"
    fi
}

require_own() { # option, folder: what the system or others have is refused
    local shared='^/(boot|home|media|mnt|opt|root|run|srv|tmp|var|var/(backups|cache|lib|local|log|mail|opt|spool|tmp|www))?$'
    local system='^/(bin|boot|dev|etc|lib|lib32|lib64|libx32|proc|sbin|sys|usr)(/|$)'
    if [[ $2 =~ $shared || ($2 =~ $system && $2 != /usr/local/*/*) ]]; then
        fail 2 "$1 $2: it must be a folder of its own, and that is the system's"
    fi
}

require_free() { # option, folder, what else may be in it: is it empty, or a store, or not there?
    if "${as_root[@]}" test -d "$2/.filestored" || ! "${as_root[@]}" test -e "$2"; then return; fi
    "${as_root[@]}" test -d "$2" || fail 2 "$1 $2: that is no folder"
    local other
    other=$("${as_root[@]}" find "$2/" -mindepth 1 -maxdepth 1 ! -name lost+found ! -name '[0-9a-f][0-9a-f]' \
        ! -name "${3:-lost+found}" -print -quit 2>/dev/null || true)
    [[ -z $other ]] || fail 2 "$1 $2: it is no store, and has $other in it; name a folder that is empty, or not there yet"
}

is_granted() { # user, what for (4 reads, 1 enters), path: do owner, group and mode say so?
    local status mode owner group
    status=$(stat -L -c '%a %U %G' -- "$3" 2>/dev/null) || return 1
    read -r mode owner group <<<"$status"
    mode=$((8#$mode))
    if [[ $owner == "$1" ]]; then
        mode=$((mode >> 6))
    elif [[ " $(id -nG -- "$1" 2>/dev/null || true) " == *" $group "* ]]; then
        mode=$((mode >> 3))
    fi
    (((mode & $2) == $2))
}

closed_to() { # user, what for, path: prints what of the path is closed to him, if anything
    local path folder
    for path in "$3" "$(readlink -m -- "$3")"; do
        folder=/
        while IFS= read -r -d / part; do
            folder=${folder%/}/$part
            is_granted "$1" 1 "$folder" || { printf '%s' "$folder" && return; }
        done <<<"${path#/}"
        is_granted "$1" "$2" "$path" || { printf '%s' "$path" && return; }
    done
}

is_hidden() { # path: is it in a folder that a hardened unit does not see?
    case $1/ in /home/* | /root/* | /run/user/* | /tmp/* | /var/tmp/*) return 0 ;; esac
    return 1
}

# what was asked for

yes=no install=no name=filestored.service user=filestored program='' store='' spool='' unit_dir=/etc/systemd/system
port=9000
settings=() keys=() as_root=()

while (($#)); do
    option=$1 value='' has_value=no
    shift
    [[ $option != --*=* ]] || { value=${option#*=} option=${option%%=*} has_value=yes; }
    case $option in
    --host | --port | --log | --listen | --buffer | --store | --spool | --tls-cert | --tls-key | \
        --service-name | --service_name | --user | --program | --unit-dir)
        if [[ $has_value == no ]]; then
            (($#)) || fail 2 "$option needs a value"
            value=$1
            shift
        fi
        [[ $value != -* ]] || fail 2 "$option needs a value, and $value looks like an option"
        ;;
    --default | --yes | --install | --help) [[ $has_value == no ]] || fail 2 "$option takes no value" ;;
    esac
    case $option in
    --host)
        [[ $value != \[* ]] || fail 2 "$option $value: an address of IPv6 is written without brackets here"
        settings+=("$option" "$value")
        ;;
    --log | --listen | --buffer) settings+=("$option" "$value") ;;
    --port) settings+=("$option" "$value") port=$value ;;
    --store)
        require_plain "$option" "$value"
        [[ $value == *://* ]] || { value=$(realpath -m -- "$value") && require_own "$option" "$value"; }
        store=$value
        ;;
    --spool)
        require_plain "$option" "$value"
        spool=$(realpath -m -- "$value")
        require_own "$option" "$spool"
        ;;
    --tls-cert | --tls-key)
        require_plain "$option" "$value"
        value=$(realpath -s -- "$value")
        for file in "$value" "$(readlink -m -- "$value")"; do
            ! is_hidden "$file" || fail 2 "$option $value: the service does not see $file; put it into /etc/filestored"
        done
        settings+=("$option" "$value") keys+=("$value")
        ;;
    --service-name | --service_name) name=$value ;;
    --user) user=$value ;;
    --program) require_plain "$option" "$value" && program=$(realpath -s -- "$value") ;;
    --unit-dir) unit_dir=$value ;;
    --default) ;;
    -y | --yes) yes=yes ;;
    --install) install=yes ;;
    -h | --help) usage && exit 0 ;;
    *) fail 2 "there is no option $option; --help shows them all" ;;
    esac
done

if [[ -z $program ]]; then
    if [[ -x /usr/local/bin/filestored ]]; then
        program=/usr/local/bin/filestored
    elif [[ -x $ROOT/.venv/bin/filestored ]]; then
        program=$ROOT/.venv/bin/filestored
    elif ! program=$(command -v filestored); then
        fail 1 "filestored is not installed: run 'make install' in $ROOT first, or name it with --program"
    fi
fi
require_plain 'the path of the program' "$program"
[[ -f $program && -x $program ]] || fail 1 "$program cannot be run: name the command with --program"
[[ $user =~ ^[a-z_][a-z0-9_-]{0,30}$ ]] || fail 2 "--user $user: that is no name of a user"
[[ $user != root && $(id -u -- "$user" 2>/dev/null || true) != 0 ]] || fail 2 "--user $user: the daemon needs no rights of root's"
for value in "${settings[@]}"; do require_plain 'the value' "$value"; done
[[ -z $spool || $store == *://* ]] || fail 2 "--spool $spool: it is for a store in a bucket, --store s3://BUCKET/PREFIX"
# the program itself judges what its settings may be, without those of whoever calls this, and certificates that are not
# to be read by everybody only where they can be seen
judged=("${settings[@]}")
for file in "${keys[@]}"; do
    if [[ ! -r $file && (-e $file || ! -x $(dirname "$file")) ]]; then
        judged=()
        for ((i = 0; i < ${#settings[@]}; i += 2)); do
            [[ ${settings[i]} == --tls-* ]] || judged+=("${settings[@]:i:2}")
        done
    fi
done
env -i PATH="$PATH" "$program" config ${store:+--store "$store"} "${judged[@]}" >/dev/null || exit 2

if ! agreed "A systemd unit for filestored will be written into $PWD. Go on?"; then
    printf 'Nothing was written.\n'
    exit 1
fi
if [[ $yes == no ]] && agreed "It will be called $name. Choose another name?"; then
    printf 'Name: '
    IFS= read -r name || printf '\n'
fi
name=${name%.service}.service
[[ $name =~ ^[A-Za-z0-9][A-Za-z0-9_.-]{0,100}\.service$ ]] || fail 2 "$name: that is no name of a unit"

# the unit

short=${name%.service}
state=/var/lib/$short
store=${store:-$state}
require_plain 'the store' "$store"
# the folder that the daemon writes to, and what a command beside it has to be told
data=$store place=(--store "$store")
if [[ $store == *://* ]]; then
    data=${spool:-$state/spool} place=(--store "$store" --spool "${spool:-$state/spool}")
fi
# where links lead may have another name than was given
require_plain 'the folder' "$data"
require_free "${place[-2]}" "$data"
[[ $data != "$state/spool" ]] || require_free "${place[-2]}" "$state" spool
# a service's own, so that two of them share no database
variables=/etc/filestored/environment
[[ $short == filestored ]] || variables=/etc/filestored/$short.environment

folders=() home=yes
is_made_by_systemd=no
if [[ $data == "$state" || $data == "$state/spool" ]]; then
    folders+=("StateDirectory=$short" 'StateDirectoryMode=0700' "WorkingDirectory=$state")
    is_made_by_systemd=yes
elif is_hidden "$data"; then
    folders+=("BindPaths=$data")
else
    folders+=("ReadWritePaths=$data")
fi
# what the program needs to be read: its environment, the checkout that may point to, the interpreter
needed=()
environment=$(dirname "$(dirname "$(readlink -f "$program")")")
interpreter=$environment/bin/python
[[ -x $interpreter ]] || interpreter=$(command -v python3 || true)
needed+=("$environment")
[[ ! -L $program ]] || needed+=("$(dirname "$program")")
[[ $program != "$ROOT"/* ]] || needed+=("$ROOT")
[[ -z $interpreter ]] || needed+=("$(dirname "$(dirname "$(readlink -f "$interpreter")")")")
for folder in "${needed[@]}"; do
    if is_hidden "$folder" && [[ " ${folders[*]} " != *" BindReadOnlyPaths=$folder "* ]]; then
        require_plain 'the path of the program' "$folder"
        folders+=("BindReadOnlyPaths=$folder")
    fi
done
# an empty folder in place of the others', in which only what is bound there can be seen
[[ "${folders[*]}" != *"Paths=/home/"* && "${folders[*]}" != *"Paths=/root"* && "${folders[*]}" != *"Paths=/run/user/"* ]] || home=tmpfs

rights=('CapabilityBoundingSet=' 'AmbientCapabilities=' 'PrivateUsers=yes')
if [[ $port =~ ^[0-9]+$ ]] && ((10#$port > 0 && 10#$port < 1024)); then
    # a right of the machine's own, which a user namespace would take away
    rights=('CapabilityBoundingSet=CAP_NET_BIND_SERVICE' 'AmbientCapabilities=CAP_NET_BIND_SERVICE')
fi

documentation=''
if [[ -f $ROOT/docs/operations.md && $ROOT =~ ^[a-zA-Z0-9/._+~-]+$ ]]; then
    documentation="Documentation=file:$ROOT/docs/operations.md
"
fi

unit() {
    cat <<EOF
$MARK; it writes this file anew each time. Changes: systemctl edit $name
[Unit]
Description=filestored, a file storage daemon
${documentation}Wants=network-online.target
After=network-online.target postgresql.service
# a database that is away for long must not end the attempts
StartLimitIntervalSec=0

[Service]
# ready when a worker answers; a reload reads the TLS certificate anew, and ends no request
Type=notify
NotifyAccess=main
ExecStart=$program run ${place[*]}${settings[*]:+ ${settings[*]}}
ExecReload=/bin/kill -HUP \$MAINPID
EnvironmentFile=-$variables
User=$user
$(printf '%s\n' "${folders[@]}")
UMask=0077

# making a large store of an older version ready takes its time
TimeoutStartSec=infinity
# the supervisor tells the workers, which finish running requests for up to 30 seconds; for --stop-delay it asks for more
KillMode=mixed
TimeoutStopSec=60
WatchdogSec=60
Restart=on-failure
RestartSec=5
# a wrong setting does not get right by itself
RestartPreventExitStatus=2
# one worker that the system ends for want of memory is replaced by the supervisor
OOMPolicy=continue

LimitNOFILE=262144
LimitCORE=0
TasksMax=4096

$(printf '%s\n' "${rights[@]}")
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=$home
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
# not ProcSubset=pid: how much the system has still to write (/proc/meminfo), and which boot this is, are asked for
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
EOF
}

require_ours() { # path: another's file is not replaced
    if [[ -e $1 || -L $1 ]] && ! head -n 1 -- "$1" 2>/dev/null | grep -qF "$MARK"; then
        fail 1 "$1 is there and was not written by this program: choose another name with --service-name"
    fi
}

require_ours "$PWD/$name"
require_ours "$unit_dir/$name"
# a unit of the administrator's folder takes the place of any other of its name
for folder in /etc/systemd/system /run/systemd/system /usr/local/lib/systemd/system /usr/lib/systemd/system /lib/systemd/system; do
    require_ours "$folder/$name"
done
require_ours "/etc/init.d/$short"
# a file of its own, whatever others have laid in this folder
draft=$(mktemp -- "$PWD/.$name.XXXXXX")
unit >"$draft"
chmod 0644 -- "$draft"
mv -T -- "$draft" "$PWD/$name"
printf 'written: %s\n' "$PWD/$name"

for path in "$program" ${interpreter:+"$interpreter"} "${needed[@]}"; do
    closed=$(closed_to "$user" 5 "$path")
    [[ -n $closed ]] || continue
    effect="the service would not start"
    if is_hidden "$closed/" && [[ " ${folders[*]} " != *" BindReadOnlyPaths=$closed "* ]]; then
        effect="the service does, but no command beside it (sudo -u $user $program …)"
    fi
    printf 'note: %s is closed to %s, who cannot run %s: %s.\n' "$closed" "$user" "$program" "$effect"
    printf '      One that all can run: a virtual environment in /opt/filestored, docs/installing.md, "For a service"\n'
    break
done
for file in "${keys[@]}"; do
    closed=$(closed_to "$user" 4 "$file")
    [[ -z $closed ]] || printf 'note: %s is closed to %s, who must read %s: the service would not start\n' "$closed" "$user" "$file"
done

# installing it, only if told to

commands() {
    printf 'To install it, as root:\n'
    printf '  id -u %s >/dev/null 2>&1 || useradd --system --user-group --no-create-home --home-dir %s --shell /usr/sbin/nologin %s\n' \
        "$user" "$state" "$user"
    if [[ $is_made_by_systemd == no && ! -e $data ]]; then
        printf '  test -e %q || install -d -m 0700 -o %s -g %s %q\n' \
            "$data" "$user" "$(id -gn -- "$user" 2>/dev/null || printf %s "$user")" "$data"
    elif [[ $is_made_by_systemd == no && $(stat -c %U -- "$data") != "$user" ]]; then
        printf '  chown -R %s: %q\n' "$user" "$data"
    fi
    if [[ $store == *://* ]]; then
        printf '  test -e %s || install -D -m 0600 /dev/null %s\n' "$variables" "$variables"
        printf '  # AWS_ACCESS_KEY_ID=… and AWS_SECRET_ACCESS_KEY=…, or what else opens the bucket, are lines of that file\n'
    fi
    printf '  install -m 0644 %q %q/\n' "$PWD/$name" "$unit_dir"
    printf '  systemctl daemon-reload\n  systemctl enable --now %s\n' "$name"
}

if [[ $yes == yes && $install == no ]]; then
    commands
    exit 0
fi
if [[ $install == no ]] && agreed 'Only write the file, and install nothing?'; then
    commands
    exit 0
fi
if ! agreed "Install it into $unit_dir, make the user $user where there is none, and start it now?"; then
    commands
    exit 0
fi

command -v systemctl >/dev/null || fail 1 'systemctl is not there: is this a system that systemd runs?'
[[ $(systemctl is-system-running 2>/dev/null || true) != offline ]] || fail 1 'systemd does not run here: nothing was installed'
if [[ $(id -u) != 0 ]]; then
    command -v sudo >/dev/null || fail 1 'installing needs root, and there is no sudo: run the commands by hand, or this program as root'
    as_root=(sudo)
fi
# what only root can see
require_free "${place[-2]}" "$data"
if ! getent passwd "$user" >/dev/null; then
    "${as_root[@]}" useradd --system --user-group --no-create-home --home-dir "$state" --shell /usr/sbin/nologin "$user"
fi
for file in "${keys[@]}"; do
    "${as_root[@]}" runuser -u "$user" -- test -r "$file" 2>/dev/null ||
        fail 1 "$user cannot read $file: 'chown $user $file', or name a copy that belongs to $user; nothing was installed"
done
if [[ $is_made_by_systemd == no ]] && ! "${as_root[@]}" test -e "$data"; then
    "${as_root[@]}" install -d -m 0700 -o "$user" -g "$(id -gn "$user")" "$data"
elif "${as_root[@]}" test -e "$data"; then
    owner=$("${as_root[@]}" stat -c %U -- "$data")
    [[ $owner == "$user" ]] ||
        fail 1 "$data belongs to $owner: give it to $user with 'chown -R $user: $data', or name its owner with --user"
fi
# not the file of this folder, which may be another's by now
unit | "${as_root[@]}" install -m 0644 /dev/stdin "$unit_dir/$name"
"${as_root[@]}" systemctl daemon-reload
"${as_root[@]}" systemctl enable "$name"
if ! "${as_root[@]}" systemctl restart "$name"; then
    fail 1 "it does not start: 'journalctl -u $name' says why"
fi
beside="sudo -u $user"
if [[ $store == *://* ]]; then
    # the credentials are the service manager's to read
    beside="sudo systemd-run --quiet --pipe --wait -p User=$user -p EnvironmentFile=-$variables"
fi
cat <<EOF
installed and started: $unit_dir/$name
  systemctl status $name
  systemctl reload $name     # after the TLS certificate was renewed
  systemctl restart $name
  systemctl stop $name
  journalctl -u $name -f
Who has access: $beside $program token create NAME --permissions read,write,delete ${place[*]: -2}
EOF
