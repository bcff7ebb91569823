#!/bin/bash
# Installs healthport into this host by the own commands of systemd/README.md, plays the
# services, the switch and a stranger, and shows that the unit does what the man
# page says. Prints one line per finding; the exit status is 0 if all are ok.
#
# usage: tests/systemd.sh [CHECKOUT]     as root, on a scratch host
#
# CHECKOUT (by default the one this script is in) must hold systemd/README.md and,
# made by tests/packages.sh, target/dist and target/next. The host needs systemd as
# PID 1, dpkg, rpm, python3, curl, iproute2, nftables, procps and e2fsprogs: Debian 13 or
# later. It takes about six minutes and leaves the host as it was.
set -u
checkout=$(readlink -f "${1:-$(dirname "$0")/..}")
binary=/usr/bin/healthport

refuse() { echo "tests/systemd.sh: $*" >&2; exit 2; }
[[ $EUID = 0 ]] || refuse "must run as root"
[[ $(</proc/1/comm) = systemd && -d /run/systemd/system ]] ||
  refuse "PID 1 is $(</proc/1/comm), not systemd: run it on a scratch host or in a VM"
for tool in dpkg rpm python3 curl ip:iproute2 nft:nftables pgrep:procps mkfs.ext4:e2fsprogs; do
  command -v "${tool%:*}" >/dev/null || refuse "${tool%:*} is missing, first: apt-get install ${tool#*:}"
done
debs=("$checkout"/target/dist/healthport_*_"$(dpkg --print-architecture)".deb)
next_rpms=("$checkout"/target/next/healthport-*."$(uname -m)".rpm)
for file in "$checkout/systemd/README.md" "${debs[0]}" "${next_rpms[0]}"; do
  [[ -e $file ]] || refuse "$file is missing (tests/packages.sh makes the packages)"
done
deb=${debs[0]} next_rpm=${next_rpms[0]}
version=${deb##*/healthport_} version=${version%%-*}
for path in $binary /usr/local/bin/healthport /etc/healthport /etc/systemd/system/healthport@.service; do
  [[ ! -e $path ]] || refuse "$path is there already: this is not a scratch host"
done

tmp=$(mktemp -d)
declare -i good=0 bad=0
# is WHAT SEEN EXPECTED-PATTERN: a finding at once.
is() {
  # shellcheck disable=SC2053 # the pattern is a pattern
  if [[ $2 = $3 ]]; then good+=1; echo "ok - $1: $2"; else bad+=1; echo "not ok - $1: $2 (expected $3)"; fi
}

# becomes WHAT EXPECTED-PATTERN COMMAND...: a finding as soon as the command
# prints it, or after 20 s and 20 tries (a VM may stand still for minutes).
becomes() {
  local what=$1 expected=$2 seen end=$((SECONDS + 20)) tries=0
  shift 2
  # shellcheck disable=SC2053
  until seen=$("$@" 2>&1); [[ $seen = $expected ]] || ((++tries > 20 && SECONDS > end)); do sleep 0.1; done
  is "$what" "$seen" "$expected"
}

property() { systemctl show --value -p "$2" "healthport@$1"; } # property INSTANCE NAME
pid() { property "$1" MainPID; }
status() { systemctl status "healthport@$1" | sed -n 's/^ *Status: //p'; } # status INSTANCE
# What the program and systemd said about an instance.
journal() { journalctl --sync && journalctl -o cat --no-pager -u "healthport@$1"; }
# The lines of priority err and above.
errors() { journalctl --sync && journalctl -o cat --no-pager -p err -u "healthport@$1"; }
said() { journal "$1" | grep -F "${*:2}" | tail -n 1; } # said INSTANCE TEXT
conf() { echo "HEALTHPORT_OPTS=\"$2\"" >"/etc/healthport/$1.conf"; } # conf INSTANCE OPTIONS
enabled() { echo "$(systemctl is-enabled healthport@router), $(systemctl is-active healthport@router)"; }
drop_in() { # drop_in INSTANCE LINE...: of its [Service]
  mkdir -p "/etc/systemd/system/healthport@$1.service.d"
  printf '%s\n' '[Service]' "${@:2}" >"/etc/systemd/system/healthport@$1.service.d/test.conf"
  systemctl daemon-reload
}

# connect HOST PORT [COMMAND-PREFIX...]: what a TCP connect gets.
connect() {
  local said
  said=$("${@:3}" timeout 2 bash -c "exec 3<>/dev/tcp/$1/$2" 2>&1)
  case $?:$said in
    0:*) echo open ;;
    124:*) echo silent ;;
    *"Connection refused"*) echo refused ;;
    *) echo "$said" ;;
  esac
}
port() { connect 127.0.0.1 "${1:-18898}"; }

# The scripted world: a health service on 1936 that answers what $tmp/answer
# says (a status, or hang), and a watcher.
cat >"$tmp/service.py" <<'PYTHON'
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        word = open(sys.argv[1]).read().strip()
        if word == "hang":
            time.sleep(60)
        else:
            self.send_response(int(word))
            self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", 1936), Handler).serve_forever()
PYTHON
# Connects every few ms and prints "MILLISECONDS STATE" when the state changes.
cat >"$tmp/watch.py" <<'PYTHON'
import errno, socket, sys, time
pause, port, last = float(sys.argv[1]), int(sys.argv[2]), None
while True:
    now = time.monotonic()
    with socket.socket() as s:
        s.settimeout(1)
        error = s.connect_ex(("127.0.0.1", port))
    state = {0: "open", errno.ECONNREFUSED: "closed"}.get(error, "silent")
    if state != last:
        print(int(now * 1000), state, flush=True)
        last = state
    time.sleep(pause)
PYTHON
answer() { echo "$1" >"$tmp/answer.new" && mv "$tmp/answer.new" "$tmp/answer"; }
serve() { python3 "$tmp/service.py" "$tmp/answer" 2>/dev/null & service=$!; }
unserve() { kill $service && wait $service; } 2>/dev/null
watch() { # watch SECONDS-BETWEEN [PORT]: starts the watcher and waits for its first word
  : >"$tmp/watch"
  python3 "$tmp/watch.py" "$1" "${2:-18898}" >"$tmp/watch" & watcher=$!
  until [[ -s $tmp/watch ]]; do sleep 0.05; done
}
watched() { # the times between changes so far, ends the watcher
  kill "$watcher" && wait "$watcher" 2>/dev/null
  awk 'NR > 1 { printf "%s %d ms, ", state, $1 - then } { then = $1; state = $2 } END { print state }' "$tmp/watch"
}
watched_to_open() { # the same, when the port is open again: $seen
  becomes "the port" open port
  sleep 0.5
  seen=$(watched)
}
closed_for() { sed -n 's/.*closed \([0-9]*\) ms, open$/\1/p' <<<"$1"; }
milliseconds() { awk '{ print int($1 * 1000) }' /proc/uptime; }

service='' watcher='' frozen=/run/healthport-frozen
reserved=net.ipv4.ip_local_reserved_ports
reserved_before=$(sysctl -n $reserved)
# shellcheck disable=SC2329 # the trap calls it
cleanup() {
  kill ${service:+"$service"} ${watcher:+"$watcher"} 2>/dev/null
  fsfreeze -u $frozen
  systemctl stop 'healthport@*' app
  systemctl disable -q healthport@.service healthport-lead@.service
  umount $frozen && rmdir $frozen
  dpkg -P healthport
  command rpm --nodeps -e healthport
  rm -rf "$tmp" /usr/local/bin/healthport /usr/local/share/man/man8/healthport.8.gz /usr/local/share/doc/healthport \
    /etc/healthport /etc/systemd/system/{healthport*,app.service,leaving.target} /etc/sysctl.d/50-healthport.conf
  sysctl -q -w "$reserved=$reserved_before"
  nft delete table inet healthport
  ip address del 10.0.0.7/32 dev lo
  ip netns delete switch
  ip netns delete stranger
  systemctl daemon-reload
  systemctl reset-failed 'healthport@*'
} 2>/dev/null
trap cleanup EXIT
trap 'exit 130' INT TERM

# The code block under a heading of systemd/README.md: block HEADING [NUMBER]
block() {
  awk -v heading="$1" -v wanted="${2:-1}" '/^##+ / { sub(/^#+ /, ""); here = $0 == heading; number = 0 }
    here && /^```/ { inside = !inside; number += inside; next } here && inside && number == wanted' \
    "$checkout/systemd/README.md"
}
# Runs such commands as they stand. On Debian rpm knows of no /bin/sh.
as_root='sudo() { "$@"; }; rpm() { command rpm --nodeps "$@"; };'
play() { # play WHAT COMMANDS
  # shellcheck disable=SC2016 # $as_root is for the inner shell
  local wrong=""
  bash -euo pipefail -c "$as_root $2" >"$tmp/said" 2>&1 || wrong="failed: $(<"$tmp/said")"
  is "$1, by the README's commands" "<$wrong>" "<>"
}
# The package again, with another version and, if a file is given, another binary:
# another VERSION [BINARY]
another() {
  rm -rf "$tmp/deb"
  dpkg-deb --raw-extract "$deb" "$tmp/deb"
  sed -i "s/^Version: .*/Version: $1-1/" "$tmp/deb/DEBIAN/control"
  sed -i "s/${version//./\\.} /$1 /g" "$tmp/deb/usr/bin/healthport"
  echo "# by $1" >>"$tmp/deb/etc/healthport/router.conf"
  [[ ! ${2-} ]] || cp "$2" "$tmp/deb/usr/bin/healthport"
  dpkg-deb --root-owner-group --build -Znone "$tmp/deb" "$tmp/$1.deb" >/dev/null
}
# What of healthport is on the host, its own changes aside: nothing is the rule.
left() {
  find /etc /usr /run/systemd -name '*healthport*' -not -path "$checkout/*" 2>/dev/null
  pgrep -x healthport
}

echo "# $(uname -r), $(systemctl --version | head -n 1), $(dpkg-deb -f "$deb" Package Version Architecture | tr '\n' ' ')"

### Installation, by the README ###############################################
mkdir "$tmp/dist" && cp "$checkout"/target/dist/* "$tmp/dist" && cd "$tmp/dist" || exit 2
answer 200
serve
play "installed" "$(block 'A package' | head -n 1)"
is "installed, it says" "$(grep 'to start it' "$tmp/said")" "*: systemctl enable --now healthport@router"
is "installed only: enabled, active" "$(enabled)" "disabled, inactive"
play "started" "$(block 'A package' | tail -n 1)"
((bad == 0)) || exit 1
is "the kernel keeps these ports from outgoing connections" "$(sysctl -n $reserved)" 1936,6080,18890-18999,22624
becomes "healthport@router is active" active systemctl is-active healthport@router
becomes "with the options of router.conf" "*timeout 10s, rise 1, fall 2;*" said router " probes "
becomes "the port" open port
# Who closes first is in TIME_WAIT: a client that reads to the end lets healthport do so.
timeout 20 cat </dev/tcp/127.0.0.1/18898
play "verified" "$(block Verify)"
is "verified: the port listens" "$(grep '^LISTEN ' "$tmp/said")" "LISTEN * 0.0.0.0:18898 *"
is "verified: who has checked it" "$(grep -m1 '^0 ' "$tmp/said")" "0 *127.0.0.1:18898 127.0.0.1:*"
is "enabled for the next boot" "$(systemctl is-enabled healthport@router)" enabled
is "systemd-analyze verify says" "<$(systemd-analyze verify --man=no healthport@router.service 2>&1)>" "<>"
is "exposure by this systemd, at most 1.1" \
  "$(systemd-analyze security --no-pager --threshold=11 healthport@router >"$tmp/exposure" && grep -o 'level for.*' "$tmp/exposure")" "*[01].[0-9]*"
check() { bash -c "$as_root $(block Configure 2)" 2>&1; }
is "a file is checked before a restart" "$(check)" "*listen *0.0.0.0:18898*drain-file */etc/healthport/router.drain*"
sed -i 's/--drain/--drian/' /etc/healthport/router.conf
is "a file with a mistake is checked" "$(check) $?" "healthport: unknown option '--drian-file'*64"
systemctl stop healthport@router

### Defaults, state in words, who it is ########################################
conf router "--timeout 3s"
unserve
systemctl start healthport@router
is "starts, no service" "$(systemctl is-active healthport@router)" active
is "the port" "$(port)" refused
becomes "systemctl status" "*port closed: cannot connect to 127.0.0.1:1936: connection refused*" status router
serve
becomes "the service comes: the port" open port
becomes "systemctl status" '"port open: answered 200"' status router
status=$(grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' "/proc/$(pid router)/status" | tr '\t\n' '  ')
is "unprivileged" "$status" "Uid: [1-9]* CapEff: 0000000000000000 CapBnd: 0000000000000000 NoNewPrivs: 1 Seccomp: 2 *"
is "its memory is locked, in KiB" "$(awk '/^VmLck:/ { print $2 }' "/proc/$(pid router)/status")" "@(1[5-9]|2[0-5])[0-9][0-9]"
is "memory in bytes and tasks, of 33554432 and 128" "$(property router MemoryCurrent) $(property router TasksCurrent)" "[1-9]* 2"

### The port follows the health endpoint, one line per change ################
systemctl restart healthport@router
becomes "the port" open port
unserve
becomes "the service dies: the port" refused port
serve
becomes "the service comes back: the port" open port
for word in 500 200 hang 200 302 200; do
  answer $word
  case $word in 200) state=open ;; *) state=refused ;; esac
  becomes "the service says $word: the port" $state port
done
journal router | grep '^[A-Z]* *\[healthport\]' | tac | sed '/ probes /q' | tac |
  sed -E '1d; /still closed/d; s/ \((open for|closed for).*//; s/cannot connect .*|connection lost.*/refused or reset/' >"$tmp/seen"
open="INFO  [healthport] port open on 0.0.0.0:18898: answered 200" closed="INFO  [healthport] port closed on 0.0.0.0:18898: "
printf '%s\n' "$open" "${closed}refused or reset" "$open" "${closed}answered 500, expected 200" "$open" \
  "${closed}no complete answer within 3s" "$open" "${closed}answered 302, expected 200" "$open" >"$tmp/wanted"
is "the journal against one line per change" "<$(diff "$tmp/wanted" "$tmp/seen")>" "<>"
answer hang
sleep 15 # five timeouts, more than twice WatchdogSec
is "the service hangs for 15 s, with a timeout of 3 s: the watchdog restarted it" "$(property router NRestarts) times" "0 times"
answer 200
systemctl kill -s USR1 --kill-whom=main healthport@router
becomes "SIGUSR1 logs the state" "*port *: * (for * probes, * bad, *" said router " bad, in "

### Out of service and back, metrics, by the README ##########################
conf router "--drain-file /etc/healthport/router.drain"
systemctl restart healthport@router
becomes "the port" open port
play "out of service" "$(block 'Out of service and back' | head -n 1)"
becomes "drained: the port" refused port
becomes "systemctl status" '"port closed: drained, *router.drain* exists"' status router
play "back" "$(block 'Out of service and back' | tail -n 1)"
becomes "no longer drained: the port" open port
play "metrics turned on" "$(block Metrics)"
is "among them" "$(grep '^healthport_up' "$tmp/said")" "healthport_up [01]"

### A loop that cannot move ####################################################
# Its log is on a file system that is frozen: the next line is a wait that nothing
# interrupts, SIGKILL included, while the port is open.
truncate -s 8M "$tmp/disk"
mkfs.ext4 -q "$tmp/disk"
mkdir $frozen
mount -o loop "$tmp/disk" $frozen
drop_in stuck "StandardError=append:$frozen/log"
conf stuck "--listen 0.0.0.0:18902 --log-level debug"
systemctl start healthport@stuck
becomes "a loop that can move: the port" open port 18902
stuck=$(pid stuck)
watch 0.05 18902
fsfreeze -f $frozen
becomes "its log is frozen: the port" refused port 18902
systemctl kill -s KILL healthport@stuck
is "SIGKILL does not end it: its state" "$(awk '/^State:/ { print $2 }' "/proc/$stuck/status")" D
sleep 15 # more than twice WatchdogSec
closed=$(awk '/closed/ { print $1; exit }' "$tmp/watch")
is "neither this nor the watchdog opens it again" "$(watched)" "open * ms, closed"
killed=$(journalctl -o short-monotonic -u healthport@stuck | awk -F '[][]' '/Watchdog timeout/ { print int($2 * 1000); exit }')
is "the lease closed it $((killed - closed)) ms before the watchdog's kill" "$((killed > closed))" 1
fsfreeze -u $frozen
becomes "thawed: another one has the port" open port 18902
systemctl stop healthport@stuck

### A lead at shutdown #########################################################
# A service that stops at once, and a target that stops units as shutdown.target does.
mkdir "$tmp/www" && touch "$tmp/www/health"
printf '[Service]\nWorkingDirectory=%s\nExecStart=python3 -m http.server 8080\nRestart=always\n' "$tmp/www" \
  >/etc/systemd/system/app.service
units="app.service healthport@app.service healthport-lead@app.service"
printf '[Unit]\nConflicts=%s\nAfter=%s\n' "$units" "$units" >/etc/systemd/system/leaving.target
systemctl daemon-reload
systemctl start app
wait_for() { # wait_for STATE PORT
  local tries=0
  until [[ $(port "$2") = "$1" ]] || ((++tries > 600)); do sleep 0.1; done
}
# lead COMMAND...: from the refusal of the port to that of the service, in ms.
lead() {
  local before
  systemctl start app healthport@app
  wait_for open 18901
  "$@"
  wait_for refused 18901
  before=$(milliseconds)
  wait_for refused 8080
  echo $(($(milliseconds) - before))
}
play "a service of one's own" "$(block Configure 3)"
is "the node shuts down, without the lead, ms" "$(lead systemctl start --no-block leaving.target)" "[0-9]*"
play "a lead" "$(block 'A lead at shutdown')"
for command in "start --no-block leaving.target" "stop --no-block app"; do
  # shellcheck disable=SC2086 # words
  took=$(lead systemctl $command)
  is "systemctl $command, with the lead: $took ms, at least 5000" "$((took >= 5000))" 1
done
systemctl start app
becomes "the service starts again: the port" open port 18901
systemctl kill -s KILL app
becomes "the service dies, systemd restarts it: the port" refused port 18901
becomes "the port" open port 18901
took=$(systemctl show -p ActiveExitTimestampMonotonic -p InactiveEnterTimestampMonotonic healthport-lead@app |
  awk -F= '{ at[$1] = $2 } END { print int((at["InactiveEnterTimestampMonotonic"] - at["ActiveExitTimestampMonotonic"]) / 1000) }')
is "it waits for no lead: $took ms" "$((took < 10000))" 1
systemctl stop app

### Which port it can open #####################################################
conf inside "--listen 0.0.0.0:18999 --listen [::]:18890"
conf outside "--listen 0.0.0.0:18889 --listen 0.0.0.0:19000"
systemctl start healthport@inside healthport@outside
becomes "18999, at the end of the range" open port 18999
becomes "18890, at its beginning, on IPv6 and IPv4" open port 18890
becomes "18889, outside: the journal" "*port closed: cannot listen on 0.0.0.0:18889: permission denied, see SocketBindAllow=*" \
  said outside 0.0.0.0:18889:
is "18889" "$(port 18889)" refused
becomes "19000, outside: the journal" "*port closed: cannot listen on 0.0.0.0:19000: permission denied, see SocketBindAllow=*" \
  said outside 0.0.0.0:19000:
drop_in outside SocketBindAllow=tcp:18889
systemctl restart healthport@outside
becomes "18889 with the man page's SocketBindAllow=" open port 18889
systemctl stop healthport@inside healthport@outside

### Who may connect ############################################################
# Two clients on links of their own; 10.0.0.11 is a balancer by the README.
for client in switch:10.0.0.11 stranger:10.0.0.66; do
  name=${client%:*} address=${client#*:}
  ip netns add "$name"
  ip link add "hp-$name" type veth peer name eth0 netns "$name"
  ip address add 10.0.0.1 peer "$address" dev "hp-$name"
  ip link set "hp-$name" up
  ip -n "$name" address add "$address" peer 10.0.0.1 dev eth0
  ip -n "$name" link set eth0 up
done
from() { connect 10.0.0.1 18898 ip netns exec "$1"; }
lets_in() { # lets_in WHAT CLOSED: only the balancer; what a stranger finds at the closed port
  becomes "$1: the balancer finds the port" open from switch
  is "$1: a stranger finds it" "$(from stranger)" silent
  answer 500
  becomes "the port" refused port
  is "$1: the balancer finds the closed port" "$(from switch)" refused
  is "$1: a stranger finds the closed port" "$(from stranger)" "$2"
  answer 200
}
becomes "without a firewall: a stranger finds the port" open from stranger
play "only the balancers let in" "$(block 'Let only the balancers in')"
# systemd prints a set, in no order.
is "balancer-only.conf is in force" "$(tail -n 1 "$tmp/said")" "@(0.0.0.0/0 ::/0|::/0 0.0.0.0/0)"
lets_in balancer-only.conf refused
dropin=/etc/systemd/system/healthport@.service.d/balancer-only.conf
mv $dropin "$tmp"
systemctl daemon-reload
systemctl restart healthport@router
becomes "with neither firewall: a stranger finds the port" open from stranger
sed -i 's/192.0.2.101, 192.0.2.102/10.0.0.11, 10.0.0.12/' /etc/healthport/healthport.nft
loads() { nft -c -f /etc/healthport/healthport.nft && for _ in 1 2; do nft -f /etc/healthport/healthport.nft || return; done; }
is "healthport.nft loads, twice" "$(loads 2>&1) $?" " 0"
is "healthport.nft: this host finds it" "$(port)" open
lets_in healthport.nft silent
nft delete table inet healthport
mv "$tmp/balancer-only.conf" $dropin
systemctl daemon-reload
systemctl restart healthport@router

### An address that is not on the node yet #####################################
conf later "--listen 10.0.0.7:18901"
systemctl start healthport@later
becomes "an address that is not here: the journal" \
  "*port closed: cannot listen on 10.0.0.7:18901: address not available; next try in 1s" said later 10.0.0.7:18901:
becomes "systemctl status" '"port closed: cannot listen on 10.0.0.7:18901*' status later
sleep 3 # three more tries, which must not be logged
is "lines about it after more tries" "$(journal later | grep -c 'cannot listen')" 1
is "journalctl -p err: it, and nothing else of the program" "$(errors later | grep -F '[healthport]')" \
  "ERROR [[]healthport[]] port closed: cannot listen on 10.0.0.7:18901*"
is "journalctl -p err of a translation that is well" "<$(errors inside)>" "<>"
ip address add 10.0.0.7/32 dev lo
ip -n switch route add 10.0.0.7 dev eth0
becomes "the address comes: the port" open connect 10.0.0.7 18901 ip netns exec switch
systemctl stop healthport@later
ip address del 10.0.0.7/32 dev lo

### SIGSTOP, SIGKILL, restart, stop ############################################
becomes "the port" open port
before=$(property router NRestarts)
watch 0.1
systemctl kill -s STOP --kill-whom=main healthport@router
becomes "SIGSTOP: the watchdog restarts it: restarts" $((before + 1)) property router NRestarts
watched_to_open
lie=$(sed -n 's/^open \([0-9]*\) ms, closed.*/\1/p' <<<"$seen")
is "the journal" "$(said router "Watchdog timeout")" "*Watchdog timeout*"
is "a stopped process had its port for at most WatchdogSec=6s and a little: $seen" "$((${lie:-99999} <= 8000))" 1

before=$(property router NRestarts)
watch 0.005
systemctl kill -s KILL --kill-whom=main healthport@router
becomes "SIGKILL: systemd restarts it: restarts" $((before + 1)) property router NRestarts
watched_to_open
is "SIGKILL: the switch would see" "$seen" "open * ms, closed * ms, open"

echo "# mine" >>/etc/healthport/router.conf
times=''
for number in 1 2 3 4 5; do
  another "0.9.$number"
  watch 0.005
  play "upgraded" "$(block Upgrade | sed "s, [^ ]*\.deb, '$tmp/0.9.$number.deb',")"
  watched_to_open
  times+=" $(closed_for "$seen")"
done
is "upgrade: the port was closed for so many ms, five times" "$times" " [0-9]* [0-9]* [0-9]* [0-9]* [0-9]*"
is "the journal has the new version" "$(said router " probes ")" "*0.9.5*"
is "an edited file outlives it" "$(tail -n 1 /etc/healthport/router.conf)" "# mine"

### Roll-out ###################################################################
# This host is both nodes.
mkdir "$tmp/bin"
# shellcheck disable=SC2016 # for the file
printf '#!/bin/bash\necho "$1" >>%q\nexec bash -c "$2"\n' "$tmp/touched" >"$tmp/bin/ssh"
chmod +x "$tmp/bin/ssh"
block "Roll out to many nodes" >"$tmp/roll-out"
printf 'one\ntwo\n' >nodes
roll_out() { # roll_out PACKAGE: the exit status and the nodes that were touched
  rm -f "$tmp/touched"
  PATH=$tmp/bin:$PATH bash "$tmp/roll-out" "$1" >"$tmp/said" 2>&1
  echo "$? $(sort -u "$tmp/touched" | tr '\n' ' ')"
}
another 0.9.6
is "roll-out: exit status, nodes touched" "$(roll_out "$tmp/0.9.6.deb")" "0 root@one root@two "
is "the port" "$(port)" open
echo '#!/nowhere' >"$tmp/broken"
another 0.9.7 "$tmp/broken"
is "roll-out of a broken binary: exit status, nodes touched" "$(roll_out "$tmp/0.9.7.deb")" "1 root@one "
is "it says" "$(grep -A9 'not what it was' "$tmp/said" | tr '\n' ' ')" "one is not what it was; before: *0.0.0.0:18898 *now: *"
dpkg --force-confold -i "$tmp/0.9.6.deb" >/dev/null 2>&1
systemctl restart healthport@router
becomes "the version before again: the port" open port

before=$(milliseconds)
systemctl stop --no-block healthport@router
until [[ $(port) = refused ]]; do :; done
# Of TimeoutStopSec=6s.
took=$(($(milliseconds) - before))
is "stop closes the port within $took ms" "$((took < 6000))" 1
becomes "stop: the unit" inactive systemctl is-active healthport@router
is "the last line" "$(said router ": port closed, stopping; it was: ")" "*SIGTERM: port closed, stopping; it was: *"
left=$(pgrep -x healthport; find /run /var/lib /var/cache /var/tmp /tmp /sys/fs/cgroup -name '*healthport@router*' 2>/dev/null; getent passwd healthport)
is "a stopped service leaves behind" "<$left>" "<>"

### Bad input ##################################################################
# failed INSTANCE WHAT EXPECTED-LINE: it fails, says why, and is not started again.
first_word() { journal "$1" | grep -E 'healthport: |xecutable' | head -n 1; }
failed() {
  systemctl start "healthport@$1" 2>/dev/null
  becomes "$2: the unit" failed systemctl is-active "healthport@$1"
  becomes "$2: the journal" "$3" first_word "$1"
  sleep 2
  is "$2: starts" "$(journal "$1" | grep -c '^Starting ')/$(property "$1" NRestarts) again" "1/0 again"
}
conf usage "--timeout 3"
failed usage "a usage error" 'healthport: --timeout "3" is not allowed: it takes a number with its unit*'
is "journalctl -p err of a usage error" "$(errors usage | grep -F 'healthport: ')" 'healthport: --timeout "3" is not allowed*'
echo 'HEALTHPORT OPTS=--timeout 3s' >/etc/healthport/garbage.conf
failed garbage "a mistyped variable" 'healthport: *"/etc/healthport/garbage.conf is missing or sets no HEALTHPORT_OPTS"*'
failed ruoter "a mistyped instance" 'healthport: *"/etc/healthport/ruoter.conf is missing or sets no HEALTHPORT_OPTS"*'
conf words "--header Host: a"
failed words "words that want quotes" 'healthport: *'
mv $binary "$tmp/healthport"
conf missing "--listen 0.0.0.0:18901"
failed missing "a missing binary" "*xecutable*healthport*No such file or directory*"
mv "$tmp/healthport" $binary
systemctl start healthport@missing
becomes "the binary is back: the unit" active systemctl is-active healthport@missing
systemctl stop healthport@missing

### The list of system calls ###################################################
# Another program under the same filter: a call that is not on the list kills it.
# (access(2) is for the dynamic linker, which healthport has not.)
filtered() { # filtered CALLS: which are added to the list
  drop_in filter Type=oneshot NoExecPaths= Restart=no ExecStart= ExecStart=/bin/sync "SystemCallFilter=$1"
  systemctl start healthport@filter 2>/dev/null
  echo "$(property filter Result) $(property filter ExecMainStatus)"
}
is "sync(1) under the unit's filter: result, status" "$(filtered access)" "@(signal|core-dump) 31"
is "and with sync(2) added to the list: result, status" "$(filtered "access sync")" "success 0"

### Removal, by the README #####################################################
rm -r /etc/systemd/system/healthport@{outside,filter,stuck}.service.d
systemctl start healthport@router
dpkg -r healthport >/dev/null 2>&1
becomes "dpkg -r: the port" refused port
is "the edited file is still there" "$(tail -n 1 /etc/healthport/router.conf)" "# mine"
dpkg -i "$tmp/0.9.6.deb" >"$tmp/said" 2>&1
is "installed again: enabled, active" "$(enabled)" "disabled, inactive"
systemctl enable -q --now healthport@router
becomes "and started: the port" open port
# A ruleset that includes our firewall as its head says, in a network of its own.
{
  printf 'flush ruleset\ntable inet rest {\n}\n'
  sed -n 's/^#  *\(include .*\)/\1/p' /etc/healthport/healthport.nft
} >"$tmp/nftables.conf"
tables() { ip netns exec stranger sh -c "nft -f '$tmp/nftables.conf' && nft list tables" 2>&1 | tr '\n' ' '; }
is "a ruleset that includes ours: tables" "$(tables)" "table inet rest table inet healthport "
play "purged" "$(block Remove)"
is "the same ruleset at the next boot: tables" "$(tables)" "table inet rest "
becomes "the port" refused port
is "left behind" "<$(left)>" "<>"

### The tar, and a package over it #############################################
play "installed from the tar" "$(block 'The tar')"
becomes "the port" open port
play "upgraded from the tar" "$(block Upgrade 2)"
becomes "the port" open port
dpkg -i "$deb" >"$tmp/said" 2>&1
is "a package over it names" "$(grep -o '/[^,]*, not of this package' "$tmp/said" | tr '\n' ' ')" \
  "/usr/local/bin/healthport, not of this package /etc/systemd/system/healthport@.service, not of this package "
dpkg -P healthport >/dev/null 2>&1
play "the tar's removed" "$(block Remove 2)"
is "left behind" "<$(left)>" "<>"

### The rpm ####################################################################
play "installed" "$(block 'A package' 2 | head -n 1)"
is "installed only: enabled, active" "$(enabled)" "disabled, inactive"
play "started" "$(block 'A package' 2 | tail -n 1)"
becomes "the port" open port
echo "# mine" >>/etc/healthport/router.conf
started=$(property router ActiveEnterTimestampMonotonic)
watch 0.005
play "upgraded" "rpm -U '$next_rpm'"
watched_to_open
is "upgrade: the switch would see" "$seen" "open * ms, closed * ms, open"
is "it was restarted" "$(($(property router ActiveEnterTimestampMonotonic) > started))" 1
is "the edited file is still there" "$(tail -n 1 /etc/healthport/router.conf)" "# mine"
is "the package verifies, the edited file aside" "$(bash -c "$as_root rpm -V healthport" | grep -v '  c /etc/healthport/router.conf')" ""
play "removed" "rpm -e healthport"
becomes "the port" refused port
is "left behind" "$(left | tr '\n' ' ')" "/etc/healthport "
rm -r /etc/healthport
is "system calls that the filter killed, the test's own aside" \
  "$(journalctl -o cat --no-pager -u 'healthport@*' | grep -c 'status=31/SYS')" 1

echo "# $good ok, $bad not ok, $SECONDS s"
((bad == 0))
