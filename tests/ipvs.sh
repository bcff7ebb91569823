#!/bin/bash
# Puts a real layer-4 switch, IPVS with keepalived, before three nodes with the
# lab's router and healthport, lets things happen to a router under load that
# never retries, and counts every connection. Prints a table for each experiment,
# and one line per finding; the exit status is 0 if all are ok.
#
# usage: tests/ipvs.sh [--scale X] [EXPERIMENT[:CELL]...]   as root, on a scratch host
#
#   checks:EVENT     each check of keepalived, every 2 s, down after two, up after one:
#                    start crash hung drain busy reload rolling
#   policies:EVENT   how packets are forwarded, and what becomes of existing
#                    connections: drain crash
#   closed           all three routers are told to stop at once
#   vrrp             healthport --once as a vrrp_script
#
# Without arguments it does them all, at production's times, in about half an hour.
# --scale 0.2 makes every time a fifth of production's: the router's, healthport's,
# keepalived's and IPVS's, but not VRRP's. policies wants its full times: at 0.2 its
# downloads were too many for one emulated core.
#
# It needs systemd as PID 1, root, ip_vs, keepalived, HAProxy, ipvsadm, iproute2 and
# python3, and two binaries of this checkout:
#
#   cargo build --locked --release && cargo lab --help
#
# Everything happens in network namespaces of its own, and ends with the script; only
# the kernel's modules stay loaded.
set -u
here=$(readlink -f "$(dirname "$0")")
target=${here%/tests}/target/release
healthport=$target/healthport

refuse() { echo "tests/ipvs.sh: $*" >&2; exit 2; }
scale=1
if [[ ${1-} = --scale ]]; then
  scale=${2-}
  [[ $scale =~ ^(1|0?\.[1-9][0-9]*)$ ]] || refuse "--scale '$scale' is not in 0.1 to 1"
  shift 2
fi
all=(checks:{start,crash,hung,drain,busy,reload,rolling} policies:{drain,crash} closed vrrp)
wanted=()
for word in "${@:-}"; do
  found=''
  for cell in "${all[@]}"; do
    [[ -z $word || $cell = "$word" || ${cell%:*} = "$word" ]] && wanted+=("$cell") found=yes
  done
  [[ $found ]] || refuse "'$word' is none of: ${all[*]}"
done

[[ $EUID = 0 ]] || refuse "must run as root"
[[ $(</proc/1/comm) = systemd ]] || refuse "PID 1 is $(</proc/1/comm), not systemd: run it on a scratch host or in a VM"
for tool in python3:python3 curl:curl ip:iproute2 ipvsadm:ipvsadm keepalived:keepalived haproxy:haproxy setpriv:util-linux; do
  command -v "${tool%:*}" >/dev/null || refuse "${tool%:*} is missing, first: apt-get install ${tool#*:}"
done
for module in ip_vs ip_vs_rr ip_vs_sh; do
  modprobe $module || refuse "the kernel has no $module"
done
# The lab's command is also the router.
lab=$target/lab
[[ -x $healthport && -x $lab ]] ||
  refuse "binaries are missing: cargo build --locked --release && cargo lab --help"
! ip netns list | grep -q '^ipvs-' || refuse "network namespaces ipvs-* are there already: this is not a scratch host"

tmp=$(mktemp -d)
results=$tmp/results
: >"$results"
declare -i good=0 bad=0
ok() { good+=1; echo "ok - $*"; }
not_ok() { bad+=1; echo "not ok - $*"; }
# is, at_most, less, more_than: WHAT SEEN NUMBER. What is no number is a row that is
# not there, and not ok.
number() { [[ $1 =~ ^-?[0-9]+$ && $2 =~ ^-?[0-9]+$ ]]; }
at_most() { if number "$2" "$3" && (($2 <= $3)); then ok "$1: $2"; else not_ok "$1: $2 (expected at most $3)"; fi; }
is() { if [[ $2 = "$3" ]]; then ok "$1: $2"; else not_ok "$1: $2 (expected $3)"; fi; }
less() { if number "$2" "$3" && (($2 < $3)); then ok "$1: $2 of $3"; else not_ok "$1: $2 (expected less than $3)"; fi; }
more_than() { if number "$2" "$3" && (($2 > $3)); then ok "$1: $2"; else not_ok "$1: $2 (expected more than $3)"; fi; }
calc() { awk "BEGIN { print $1 }"; }
real() { calc "$1 * $scale"; } # what SECONDS of production are here
pause() { sleep "$(real "$1")"; }
at_least() { awk "BEGIN { n = int($1 * $scale + 0.5); print (n > 1 ? n : 1) }"; }
# until_true SECONDS WHAT COMMAND...: polls; ends the script when it takes longer.
until_true() {
  local limit=$1 what=$2 end=$((SECONDS + $1 + 20))
  shift 2
  until "$@"; do
    ((SECONDS < end)) || { echo "tests/ipvs.sh: waited ${limit} s in vain for $what" >&2; exit 1; }
    sleep 0.1
  done
}

### What is started, and its end ##############################################
# shellcheck disable=SC2329 # the trap calls it
cleanup() {
  trap '' INT TERM
  local name pids
  for name in $(ip netns list | sed -n 's/^\(ipvs-[a-z0-9]*\).*/\1/p'); do
    pids=$(ip netns pids "$name")
    # shellcheck disable=SC2086 # a list
    [[ -z $pids ]] || kill -9 $pids
    ip netns delete "$name"
  done
  wait
  rm -rf "$tmp"
} 2>/dev/null
trap cleanup EXIT
trap 'exit 130' INT TERM

inside() { ip netns exec "ipvs-$1" "${@:2}"; } # inside NAMESPACE COMMAND...
settings() { inside "$1" sysctl -q -w "${@:2}"; }

# join NAME ADDRESS: a namespace, on the network that all share.
join() {
  ip netns add "ipvs-$1"
  ip -n "ipvs-$1" link set lo up
  ip link add eth0 netns "ipvs-$1" type veth peer name "$1" netns ipvs-net
  ip -n ipvs-net link set "$1" master bridge up
  ip -n "ipvs-$1" address add "$2/24" dev eth0
  ip -n "ipvs-$1" link set eth0 up
  # The way back is another than the way there, and the switch sends on what came
  # in on the same link.
  settings "$1" net.ipv4.conf.{all,default,eth0}.rp_filter=0 net.ipv4.conf.{all,eth0}.send_redirects=0
}

# 10.66.0.2 is the client, .3 the service behind the routers, .11 to .13 are the
# nodes, .101 and more the switches. Switch 1 has the clients 10.101.0.0/24 and the
# addresses 10.201.0.0/24.
network() {
  ip netns add ipvs-net
  ip -n ipvs-net link add bridge up type bridge
  join client 10.66.0.2
  join hello 10.66.0.3
  local number
  for number in 1 2 3; do
    join node$number 10.66.0.1$number
    # Every address of a switch is the node's own too (direct routing), and nobody
    # hears of it, since no one asks for it on this link.
    ip -n ipvs-node$number route add local 10.192.0.0/10 dev lo
    ip -n ipvs-node$number route add 10.64.0.0/10 via 10.66.0.2
  done
}

# The service behind the routers, and slow downloads.
hello() {
  cat >"$tmp/hello.cfg" <<'HAPROXY'
global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 10m
  timeout server 10m
frontend hello
  bind 10.66.0.3:18080
  http-request return status 200 content-type text/plain string "Hello World!\n" unless { path_beg /slow/ }
  default_backend slow
backend slow
  server slow 10.66.0.3:18081
HAPROXY
  ip netns exec ipvs-hello haproxy -q -db -f "$tmp/hello.cfg" &
  ip netns exec ipvs-hello python3 "$here/ipvs/slow.py" 10.66.0.3 18081 &
}

### Nodes ######################################################################
routes=22
declare -a router=()
start() { # start NODE [SECONDS-OF-THE-API]
  # Not by a function, so that $! is the router itself.
  ip netns exec "ipvs-node$1" "$lab" --router "router$1" 0.0.0.0 0 embedded "$routes" "${2:-0}" 1000 "$scale" 10.66.0.3:18080 "$tmp" \
    >"$tmp/router$1.out" &
  router[$1]=$!
}
last_word() { grep -v haproxy "$tmp/router$1.out" | tail -n 1 | cut -d ' ' -f 2; }
ready() { [[ $(last_word "$1") = READY ]]; }
haproxy_of() { sed -n 's/.* haproxy //p' "$tmp/router$1.out" | tail -n 1; }
ended() { ! kill -0 "${router[$1]}" 2>/dev/null; }
started() { start "$@" && until_true 30 "router $1" ready "$1"; }
term() { kill -TERM "${router[$1]}"; }
gone() { until_true 110 "the end of router $1" ended "$1"; }
kill_router() { # with its HAProxy, as the lab does
  kill -9 "$(haproxy_of "$1")" "${router[$1]}"
  wait "${router[$1]}" 2>/dev/null
}
nodes() {
  local number
  for number in 1 2 3; do
    start $number
    inside node$number "$healthport" --interval "$(at_least_ms 1000)" --fast-interval "$(at_least_ms 100)" \
      --timeout "$(at_least_ms 10000)" 2>"$tmp/healthport$number.log" &
  done
  for number in 1 2 3; do until_true 30 "router $number" ready $number; done
}
at_least_ms() { awk "BEGIN { n = $1 * $scale; print (n > 10 ? n : 10) \"ms\" }"; }
# All routers anew with so many routes.
resize() {
  local number
  [[ $routes != "$1" ]] || return 0
  routes=$1
  for number in 1 2 3; do kill_router "$number"; done
  for number in 1 2 3; do start "$number"; done
  for number in 1 2 3; do until_true 30 "router $number" ready "$number"; done
}

### Switches ###################################################################
declare -a names=() keepalived=()
# place NAME: the namespace of another switch, with the ways to its clients and to its
# addresses.
place() {
  names+=("$1")
  local number=${#names[@]}
  join "s$number" 10.66.0.$((100 + number))
  ip -n "ipvs-s$number" route add local 10.$((200 + number)).0.0/24 dev lo
  ip -n "ipvs-s$number" route add 10.$((100 + number)).0.0/24 via 10.66.0.2
  ip -n ipvs-client route add local 10.$((100 + number)).0.0/24 dev lo
  ip -n ipvs-client route add 10.$((200 + number)).0.0/24 via 10.66.0.$((100 + number))
}
# switch NAME DR|NAT CONN_REUSE_MODE "WORDS" CHECK...: another switch, with an
# address for each check. WORDS: inhibit; sysctls of net.ipv4.vs as name=value; sh,
# sh-fallback, persistent; sorry.
switch() {
  local name=$1 method=$2 reuse=$3 words=" $4 " number=$((${#names[@]} + 1)) word check vip=0
  shift 4
  place "$name"
  settings s$number net.ipv4.ip_forward=1 net.ipv4.vs.conn_reuse_mode="$reuse"
  inside s$number ipvsadm --set "$(at_least 900)" "$(at_least 120)" "$(at_least 300)"
  local node
  for node in 1 2 3; do # the way back to these clients: through the switch, or not
    [[ $method != NAT ]] || ip -n ipvs-node$node route add 10.$((100 + number)).0.0/24 via 10.66.0.$((100 + number))
  done
  for word in $words; do
    [[ $word != *=* ]] || settings s$number net.ipv4.vs."$word"
  done
  local conf=$tmp/s$number.conf
  printf 'global_defs {\n  script_user root\n  enable_script_security\n}\n' >"$conf"
  for check in "$@"; do
    vip=$((vip + 1))
    {
      echo "virtual_server 10.$((200 + number)).0.$vip 443 {"
      echo "  delay_loop $(real 2)"
      echo "  lvs_method $method"
      echo "  protocol TCP"
      echo "  alpha"
      [[ $words = *' sh '* ]] && echo "  lvs_sched sh" || echo "  lvs_sched rr"
      [[ $words != *' sh-fallback '* ]] || echo "  sh-fallback"
      [[ $words != *' persistent '* ]] || echo "  persistence_timeout $(at_least 300)"
      [[ $words != *' sorry '* ]] || echo "  sorry_server 10.66.0.11 443"
      for node in 1 2 3; do
        echo "  real_server 10.66.0.1$node 443 {"
        [[ $words != *' inhibit '* ]] || echo "    inhibit_on_failure"
        if [[ $check = HTTP ]]; then
          echo "    HTTP_GET {"
          echo "      url { path /healthz/ready
        status_code 200 }"
          echo "      connect_port 1936"
        else
          echo "    TCP_CHECK {"
          echo "      connect_port $check"
        fi
        printf '      connect_timeout %s\n      retry 1\n      delay_before_retry %s\n    }\n  }\n' "$(real 2)" "$(real 2)"
      done
      echo "}"
    } >>"$conf"
  done
  ip netns exec ipvs-s$number keepalived --check --dont-fork --log-console --log-detail --use-file "$conf" \
    --pid "$tmp/s$number.pid" --checkers_pid "$tmp/s$number.check.pid" >"$tmp/s$number.log" 2>&1 &
  keepalived[number]=$!
}
weights() { inside "s$1" ipvsadm -Ln | awk '/->.*:443/ { n += $4 == 1 } END { print n + 0 }'; }
settled() { (($(weights "$1") == $2)); }
# All servers of all switches are in use, and all VRRP addresses on node1.
addresses=()
settle() {
  local number
  for number in "${addresses[@]}"; do until_true 60 "VRRP address $number on node1" home "$number"; done
  for number in "${!names[@]}"; do
    until_true 60 "switch ${names[number]}" settled $((number + 1)) "$((3 * $(grep -c '^virtual' "$tmp/s$((number + 1)).conf")))"
  done
}
# Nothing of the last experiment is left but the network and the nodes.
no_switches() {
  local number node
  for number in "${!names[@]}"; do
    kill "${keepalived[number + 1]}" && wait "${keepalived[number + 1]}"
    ip netns delete ipvs-s$((number + 1))
    ip -n ipvs-client route del local 10.$((101 + number)).0.0/24 dev lo
    ip -n ipvs-client route del 10.$((201 + number)).0.0/24
    for node in 1 2 3; do ip -n ipvs-node$node route del 10.$((101 + number)).0.0/24; done
  done 2>/dev/null
  names=() keepalived=()
}

### Load #######################################################################
# share LINES: how many connections a second each line gets, of 100, which is what a
# VM with one emulated core can do; clients with few source ports take them all
# within 30 s of production.
share() { rate=$((100 / $1)) few=$(at_least $((30 * (100 / $1)))); }
# load: what is in $tmp/lines.
load() {
  rm -f "$tmp/counts"
  ip netns exec ipvs-client python3 "$here/ipvs/load.py" "$rate" "${limit:-$(real 5)}" <"$tmp/lines" >"$tmp/counts" &
  loader=$!
  until_true 20 "the load" test -s "$tmp/counts"
}
mark() {
  kill -USR1 "$loader" && marked=$(date +%s.%N)
  [[ ! -e $tmp/s1.log ]] || logged=$(wc -l <"$tmp/s1.log")
}
unload() { # unload EXPERIMENT EVENT: adds what it counted to the results
  kill -TERM "$loader" && wait "$loader"
  sed -e 1d -e "s/^/$1\t$2\t/" "$tmp/counts" | tee -a "$results" >&2
}
# taken_out ADDRESS: how often a server was taken out of this address of the first
# switch since the mark, by keepalived's log.
taken_out() { tail -n "+$((logged + 1))" "$tmp/s1.log" | grep -cE "(Disabling|Removing) service .*10\.201\.0\.$1\]"; }

### What happens ###############################################################
event_start() { mark; started 1 8; pause 15; }
event_crash() { mark; kill_router 1; pause 25; }
event_hung() { mark; kill -STOP "$(haproxy_of 1)"; pause 40; kill -CONT "$(haproxy_of 1)"; pause 15; }
event_drain() { mark; term 1; gone 1; pause 5; started 1; pause 15; }
event_busy() {
  # One download, longer than that, keeps its HAProxy for all the time it is given.
  inside node1 python3 -c 'import urllib.request
try: urllib.request.urlopen(urllib.request.Request("http://127.0.0.1/slow/120", headers={"Host": "hello.lab"})).read()
except OSError: pass' &
  event_drain
}
event_all() {
  mark
  for node in 1 2 3; do term $node; done
  for node in 1 2 3; do gone $node; done
  pause 5
  for node in 1 2 3; do start $node; done
  for node in 1 2 3; do until_true 30 "router $node" ready $node; done
  pause 20
}
event_reload() {
  mark
  for _ in {1..60}; do
    kill -HUP "${router[@]}"
    pause 1
  done
}
event_rolling() {
  local node
  mark
  for node in 1 2 3; do
    term $node
    gone $node
    pause 5
    started $node
    pause 30
  done
}
idle() { awk '/^cpu / { print $5 + $6, $2 + $3 + $4 + $5 + $6 + $7 + $8 + $9 }' /proc/stat; }
# happen EXPERIMENT EVENT: the event, under load.
happen() {
  local size=22
  [[ $2 != reload ]] || size=10000
  resize $size
  settle
  if [[ $2 = start ]]; then # a router that is not there, and every switch knows
    kill_router 1
    pause 15
  fi
  load
  idle_before=$(idle)
  pause 30 # the few source ports have come round
  kill -USR2 "$loader"
  pause 5
  "event_$2"
  echo "# $1 $2: $(echo "$idle_before $(idle)" | awk '{ print int(100 * ($3 - $1) / ($4 - $2)) }') % of the CPU idle"
  unload "$1" "$2"
  ended 1 && started 1
}

### Tables #####################################################################
# cells EXPERIMENT EVENT NAME PORTS: how many were lost, of how many, and how; lost
# EXPERIMENT EVENT NAME,PORTS: the number alone.
cells() {
  awk -F '\t' -v row="$1/$2/$3,$4" '$1 "/" $2 "/" $3 == row {
    how = ""
    split("wrong refused reset timed-out", words, " ")
    for (i = 1; i <= 4; i++) if ($(6 + i)) how = how ", " $(6 + i) " " words[i]
    lost = $4 - $6
    if (lost) print "**" lost "** of " $4 " (" substr(how, 3) ")"; else print "0 of " $4
  }' "$results"
}
lost() { awk -F '\t' -v row="$1/$2/$3" '$1 "/" $2 "/" $3 == row { n += $4 - $6; rows++ } END { print rows ? n : "no row" }' "$results"; }
lines() { # lines NAME NUMBER ADDRESS [DOWNLOADS SECONDS]: both loads for an address of a switch
  echo "$1,many 10.$((100 + $2)).0 10.$((200 + $2)).0.$3:443 0 ${*:4}"
  echo "$1,few 10.$((100 + $2)).0 10.$((200 + $2)).0.$3:443 $few"
}

declare -A check_name=([443]="TCP on 443" [1936]="TCP on 1936" [HTTP]="HTTP_GET on 1936" [18898]="TCP on healthport")
declare -A event_name=([start]="start, the API takes 8 s" [crash]="kill -9" [hung]="hung HAProxy, 40 s"
  [drain]="drain, idle" [busy]="drain, busy" [all]="all at once" [reload]="reloads, 10,000 routes, 60 s" [rolling]="rolling update")
# Every check, on a switch with what we recommend and on one without. Each event has
# new switches: a client with few source ports stays for minutes where it was.
checks() { # checks EVENT...
  local event check vip
  share 16
  for event in "$@"; do
    switch "set" DR 3 "inhibit expire_nodest_conn=1" 443 1936 HTTP 18898
    switch "not set" DR 1 "" 443 1936 HTTP 18898
    vip=0
    for check in 443 1936 HTTP 18898; do
      vip=$((vip + 1))
      lines "set/$check" 1 $vip
      lines "not-set/$check" 2 $vip
    done >"$tmp/lines"
    happen checks "$event"
    for check in set/18898,{many,few}; do
      case $event in
        # Of a sudden death healthport knows 1.1 s later than who connects to 443.
        crash) at_most "$event, $check: lost, against TCP on 443 and 2 s more" "$(lost checks "$event" "$check")" \
          $(($(lost checks "$event" "${check/18898/443}") + rate)) ;;
        hung) less "$event, $check: lost, against TCP on 443" "$(lost checks "$event" "$check")" \
          "$(lost checks "$event" "${check/18898/443}")" ;;
        *) at_most "$event, $check: lost" "$(lost checks "$event" "$check")" 0 ;;
      esac
    done
    case $event in
      drain | busy | rolling)
        more_than "$event: servers taken out by the check on healthport" "$(taken_out 4)" 0
        for check in set/{443,1936},many; do more_than "$event, $check: lost" "$(lost checks "$event" "$check")" 0; done
        more_than "$event, not-set/18898,few: lost" "$(lost checks "$event" not-set/18898,few)" 0 ;;
      start) more_than "$event, set/1936,many: lost" "$(lost checks "$event" set/1936,many)" 0 ;;
      reload) at_most "$event: servers taken out by the check on healthport" "$(taken_out 4)" 0 ;;
    esac
    no_switches
  done
  resize 22
  echo
  echo "| Event | Check | All set: many ports | few ports | None set: many ports | few ports |"
  echo "|---|---|---:|---:|---:|---:|"
  for event in "$@"; do
    local first=${event_name[$event]}
    for check in 443 1936 HTTP 18898; do
      echo "| $first | ${check_name[$check]} | $(cells checks "$event" "set/$check" many) | $(cells checks "$event" "set/$check" few) | $(cells checks "$event" "not-set/$check" many) | $(cells checks "$event" "not-set/$check" few) |"
      first=''
    done
  done
  echo
}

# Switches that differ in one thing, all with the check on healthport: what a recipe
# says, and what happens without it. NAME: METHOD CONN_REUSE_MODE WORDS
policies_table='inhibit_on_failure, conn_reuse_mode 1: DR 1 inhibit
inhibit_on_failure, conn_reuse_mode 3: DR 3 inhibit
inhibit_on_failure, expire_nodest_conn, conn_reuse_mode 1: DR 1 inhibit expire_nodest_conn=1
inhibit_on_failure, expire_nodest_conn, conn_reuse_mode 3: DR 3 inhibit expire_nodest_conn=1
NAT, inhibit_on_failure, conn_reuse_mode 1: NAT 1 inhibit
removal, conn_reuse_mode 3: DR 3
sh, inhibit_on_failure, conn_reuse_mode 3: DR 3 sh inhibit
sh and sh-fallback, inhibit_on_failure, conn_reuse_mode 3: DR 3 sh sh-fallback inhibit
sh, persistence, inhibit_on_failure, conn_reuse_mode 3: DR 3 sh persistent inhibit
persistence, inhibit_on_failure, expire_quiescent_template, expire_nodest_conn, conn_reuse_mode 3: DR 3 persistent inhibit expire_quiescent_template=1 expire_nodest_conn=1'
# Six downloads for each, two on each node, that begin 5 s before the event and take
# 60 s: the router lets them end 55 s after it is told to stop.
policies() { # policies EVENT...
  local event name settings method reuse words ports number
  for event in "$@"; do
    while IFS=: read -r name settings; do
      read -r method reuse words <<<"$settings"
      switch "$name" "$method" "$reuse" "$words" 18898
    done <<<"$policies_table"
    share $((2 * ${#names[@]}))
    for number in "${!names[@]}"; do
      lines "${names[number]// /_}" $((number + 1)) 1 6 "$(real 60)"
    done >"$tmp/lines"
    happen policies "$event"
    no_switches
  done
  echo
  printf '| Switch |'
  for event in "$@"; do printf ' %s: many ports | few ports |' "${event_name[$event]}"; done
  printf ' %s: downloads that ended well |\n|---|' "${event_name[$1]}"
  for event in "$@"; do printf -- '---:|---:|'; done
  printf -- '---:|\n'
  while IFS=: read -r name _; do
    printf '| %s |' "$name"
    for event in "$@"; do
      printf ' %s | %s |' "$(cells policies "$event" "${name// /_}" many)" "$(cells policies "$event" "${name// /_}" few)"
    done
    printf ' %s |\n' "$(whole "$1" "${name// /_}")"
  done <<<"$policies_table"
  echo
  [[ $* = *drain* ]] || return 0
  while IFS=: read -r name _; do
    case $name in
      removal* | 'sh, '*) continue ;;
    esac
    for ports in many few; do
      # Nor does mode 1 alone keep few ports away from a server that is out.
      [[ $name,$ports = inhibit_on_failure,\ conn_reuse_mode\ 1,few ]] ||
        at_most "$name, $ports ports: lost" "$(lost policies drain "${name// /_},$ports")" 0
    done
    is "$name: downloads" "$(whole drain "${name// /_}")" "6 of 6"
  done <<<"$policies_table"
  for name in inhibit_on_failure,_conn_reuse_mode_1,few sh,_inhibit_on_failure,_conn_reuse_mode_3,many \
    sh,_persistence,_inhibit_on_failure,_conn_reuse_mode_3,many; do
    more_than "$name: lost" "$(lost policies drain "$name")" 0
  done
  more_than "removal: downloads that were cut" $((6 - $(whole drain removal,_conn_reuse_mode_3 | cut -d ' ' -f 1))) 0
}
whole() { awk -F '\t' -v row="policies/$1/$2,many" '$1 "/" $2 "/" $3 == row { print $14 " of " $13 }' "$results"; }

# Every router is told to stop at the same moment.
closed() {
  local name number
  switch "IPVS, TCP on 443, inhibit_on_failure" DR 3 inhibit 443
  switch "IPVS, inhibit_on_failure" DR 3 inhibit 18898
  switch "IPVS, inhibit_on_failure, sorry_server node1" DR 3 "inhibit sorry" 18898
  switch "IPVS, removal, sorry_server node1" DR 3 sorry 18898
  proxy "HAProxy" ""
  proxy "HAProxy, backup without a check, allbackups" "  option allbackups
  server open1 10.66.0.11:443 backup
  server open2 10.66.0.12:443 backup
  server open3 10.66.0.13:443 backup"
  share ${#names[@]}
  for number in "${!names[@]}"; do
    lines "$number" $((number + 1)) 1 | grep many
  done >"$tmp/lines"
  happen closed all
  local labels=("${names[@]}")
  no_switches
  echo
  echo "| Switch | Lost | the first, the last, after SIGTERM |"
  echo "|---|---:|---:|"
  for number in "${!labels[@]}"; do
    echo "| ${labels[number]} | $(cells closed all "$number" many) | $(times closed all "$number" many) |"
  done
  echo
  less "all at once, with a sorry_server: lost, against without" "$(lost closed all 2,many)" "$(lost closed all 1,many)"
  less "HAProxy with backups: lost, against without" "$(lost closed all 5,many)" "$(lost closed all 4,many)"
}
times() {
  awk -F '\t' -v row="$1/$2/$3,$4" -v scale="$scale" '$1 "/" $2 "/" $3 == row {
    if ($11 == "-") print "-"; else printf "%.0f s, %.0f s\n", $11 / scale, $12 / scale }' "$results"
}
# proxy NAME LINES: HAProxy in the place of IPVS, at layer 4, without a second try.
proxy() {
  local number=$((${#names[@]} + 1)) second
  place "$1"
  second=$(at_least_ms 1000)
  cat >"$tmp/s$number.conf" <<HAPROXY
defaults
  mode tcp
  retries 0
  timeout connect $((5 * ${second%ms}))ms
  timeout client 1m
  timeout server 1m
listen virtual
  bind 10.$((200 + number)).0.1:443
  option tcp-check
  tcp-check connect linger
  default-server inter $((2 * ${second%ms}))ms rise 1 fall 2
  server node1 10.66.0.11:443 check port 18898
  server node2 10.66.0.12:443 check port 18898
  server node3 10.66.0.13:443 check port 18898
$2
HAPROXY
  ip netns exec ipvs-s$number haproxy -q -db -f "$tmp/s$number.conf" &
  keepalived[number]=$!
}

# VRRP between node1 and node2, each with its router: the address goes where
# healthport --once says 0.
vrrp() {
  local number node event events=(drain crash hung reload) limit=5 # its times are whole seconds
  local -a interval=(2 2 1 1 1) weight=("" "weight -60" "" "weight -60" "") script=("" "" "" "" "--timeout 900ms") labels=()
  for number in {0..4}; do
    labels+=("interval ${interval[number]}, ${weight[number]:-no weight}${script[number]:+, ${script[number]}}")
  done
  ip -n ipvs-client route add local 10.101.0.0/24 dev lo
  for node in 1 2; do
    {
      printf 'global_defs {\n  script_user root\n  enable_script_security\n}\n'
      for number in {0..4}; do
        cat <<CONF
vrrp_script ready$number {
  script "$healthport --once ${script[number]:---timeout 3s}" # keepalived kills it after 4 s
  interval ${interval[number]}
  timeout 4
  rise 1
  fall 2
  ${weight[number]}
}
vrrp_instance instance$number {
  state BACKUP
  interface eth0
  virtual_router_id $((50 + number))
  priority $((node == 1 ? 150 : 100))
  advert_int 1
  virtual_ipaddress {
    10.66.0.$((200 + number))/32
  }
  track_script {
    ready$number
  }
}
CONF
      done
    } >"$tmp/vrrp$node.conf"
    ip netns exec ipvs-node$node keepalived --vrrp --dont-fork --log-console --log-detail --use-file "$tmp/vrrp$node.conf" \
      --pid "$tmp/vrrp$node.pid" --vrrp_pid "$tmp/vrrp$node.vrrp.pid" >"$tmp/vrrp$node.log" 2>&1 &
    keepalived[node]=$!
  done
  share 10
  addresses=(0 1 2 3 4)
  for number in {0..4}; do echo "$number,many 10.101.0 10.66.0.$((200 + number)):443 0"; done >"$tmp/lines"
  ip -n ipvs-node2 -ts monitor address >"$tmp/moves" &
  local monitor=$!
  for event in "${events[@]}"; do
    happen vrrp "$event"
    for number in {0..4}; do moves "$number" "$event"; done
  done
  kill $monitor "${keepalived[@]}"
  wait $monitor "${keepalived[@]}"
  keepalived=() addresses=()
  resize 22
  for number in {0..4}; do
    at_most "VRRP, ${labels[number]}, drain: lost" "$(lost vrrp drain "$number,many")" 3
    at_most "VRRP, ${labels[number]}, hung: moves" "$(sed 's/.*| //' "$tmp/moves.hung.$number")" 1
  done
  printf '\n| Event | vrrp_script | Address moved after | times | Lost |\n|---|---|---:|---:|---:|\n'
  local first
  for event in "${events[@]}"; do
    first=${event_name[$event]}
    for number in {0..4}; do
      echo "| $first | ${labels[number]} | $(<"$tmp/moves.$event.$number") | $(cells vrrp "$event" "$number" many) |"
      first=''
    done
  done
  echo
}
home() { ip -n ipvs-node1 -o address show to 10.66.0.$((200 + $1)) | grep -q .; }
# moves NUMBER EVENT: when the address came to node2 after the mark, and how often.
moves() {
  local at times=0 first=-
  while read -r at; do
    at=$(calc "$(date -d "$at" +%s.%N) - $marked")
    [[ $at != -* ]] || continue
    times=$((times + 1))
    [[ $first != - ]] || first=$(printf '%.1f s' "$at")
  done < <(grep -v Deleted "$tmp/moves" | sed -n "s/^\[\([^]]*\)\].* 10.66.0.$((200 + $1))\/32 .*/\1/p")
  echo "$first | $times" >"$tmp/moves.$2.$1"
}

echo "# tests/ipvs.sh --scale $scale ${*:-}"
echo "# $(date +%F), Linux $(uname -r), $(keepalived --version 2>&1 | head -n 1 | cut -d ' ' -f 1-2), $(haproxy -v | head -n 1 | cut -d ' ' -f 1-3)"
echo "# $(nproc) CPU ($(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)), $(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo) MiB"
network
hello
nodes
for experiment in checks policies closed vrrp; do
  events=()
  for cell in "${wanted[@]}"; do
    [[ ${cell%:*} != "$experiment" ]] || events+=("${cell#*:}")
  done
  ((${#events[@]} == 0)) || "$experiment" "${events[@]}"
done
echo "# $good ok, $bad not ok, $SECONDS s"
((bad == 0))
