#!/bin/bash
# Puts a real layer-4 switch, IPVS with keepalived, before three nodes with the
# lab's router and healthport, lets things happen to a router under load that
# never retries, and counts every connection. Prints a table for each experiment,
# and one line per finding; the exit status is 0 if all are ok.
#
# usage: tests/lab/ipvs.sh [--scale X] [EXPERIMENT[:EVENT]...]   as root, on a scratch host
#
#   checks    each check of keepalived, every 2 s, down after two, up after one:
#             start crash hung drain busy reload rolling
#   policies  how packets are forwarded, and what becomes of existing
#             connections: drain crash
#   closed    all three routers are told to stop at once
#   vrrp      healthport --once as a vrrp_script: drain crash hung reload
#
# Without arguments it does them all, at production's times, in about half an hour.
# --scale 0.2 makes every time a fifth of production's: the router's, healthport's,
# keepalived's and IPVS's, but not VRRP's.
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
healthport=${here%/tests/lab}/target/release/healthport
lab=${healthport%/*}/lab # which is also the router

refuse() { echo "tests/lab/ipvs.sh: $*" >&2; exit 2; }
scale=1
if [[ ${1-} = --scale ]]; then
  scale=${2-}
  [[ $scale =~ ^(1|0?\.[1-9][0-9]*)$ ]] || refuse "--scale '$scale' is not in 0.1 to 1"
  shift 2
fi
all=(checks:{start,crash,hung,drain,busy,reload,rolling} policies:{drain,crash} closed:all vrrp:{drain,crash,hung,reload})
for word in "$@"; do
  [[ " ${all[*]} " = *" $word"[\ :]* ]] || refuse "'$word' is none of: ${all[*]}"
done
[[ $EUID = 0 ]] || refuse "must run as root"
[[ $(</proc/1/comm) = systemd ]] || refuse "PID 1 is $(</proc/1/comm), not systemd: run it on a scratch host or in a VM"
for tool in python3 curl ip:iproute2 ipvsadm keepalived haproxy; do
  command -v "${tool%:*}" >/dev/null || refuse "${tool%:*} is missing, first: apt-get install ${tool#*:}"
done
modprobe -a ip_vs ip_vs_rr ip_vs_sh || refuse "the kernel has no IPVS"
[[ -x $healthport && -x $lab ]] ||
  refuse "binaries are missing: cargo build --locked --release && cargo lab --help"
! ip netns list | grep -q '^ipvs-' || refuse "network namespaces ipvs-* are there already: this is not a scratch host"

tmp=$(mktemp -d)
declare -i good=0 bad=0
# finding WHAT SEEN EXPECTED: EXPECTED is the end of an expression (<=3). A row that is
# not there is not ok.
finding() {
  if [[ $2 =~ ^[0-9]+$ ]] && (("$2 $3")); then good+=1; echo "ok - $1: $2 ($3)"; else bad+=1; echo "not ok - $1: $2 (expected $3)"; fi
}
real() { awk "BEGIN { print $1 * $scale }"; }                                  # what SECONDS of production are here
whole() { awk "BEGIN { n = int($1 * $scale + 0.5); print (n > 1 ? n : 1) }"; } # in whole seconds
ms() { awk "BEGIN { n = $1 * $scale; print (n > 10 ? n : 10) \"ms\" }"; }
pause() { sleep "$(real "$1")"; }
# until_true SECONDS WHAT COMMAND...: polls; ends the script when it takes longer.
until_true() {
  local end=$((SECONDS + $1 + 20))
  until "${@:3}"; do
    ((SECONDS < end)) || { echo "tests/lab/ipvs.sh: waited $1 s in vain for $2" >&2; exit 1; }
    sleep 0.1
  done
}

### What is started, and its end ##############################################
# shellcheck disable=SC2329 # the trap calls it
cleanup() {
  trap '' INT TERM
  local name
  for name in $(ip netns list | sed -n 's/^\(ipvs-[a-z0-9]*\).*/\1/p'); do
    ip netns pids "$name" | xargs --no-run-if-empty kill -9
    ip netns delete "$name"
  done
  wait
  rm -rf "$tmp"
} 2>/dev/null
trap cleanup EXIT
trap 'exit 130' INT TERM

inside() { ip netns exec "ipvs-$1" "${@:2}"; } # inside NAMESPACE COMMAND...
settings() { inside "$1" sysctl -q -w "${@:2}"; }
each() { local node; for node in 1 2 3; do "$@" $node; done; } # each COMMAND...: of every node

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
  ip -n ipvs-client route add local 10.96.0.0/11 dev lo # all clients
  join hello 10.66.0.3
  each node
}
node() {
  join "node$1" "10.66.0.1$1"
  # Every address of a switch is the node's own too (direct routing), and nobody
  # hears of it, since no one asks for it on this link.
  ip -n "ipvs-node$1" route add local 10.192.0.0/10 dev lo
  ip -n "ipvs-node$1" route add 10.64.0.0/10 via 10.66.0.2
  inside "node$1" "$healthport" --interval "$(ms 1000)" --fast-interval "$(ms 100)" --timeout "$(ms 10000)" 2>"$tmp/healthport$1.log" &
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
  ip netns exec ipvs-hello python3 "$here/ipvs/slow.py" 10.66.0.3 18081 2>/dev/null &
}

### Routers ####################################################################
routes=22 api=0
declare -a router=()
start() { # start NODE
  # Not by a function, so that $! is the router itself.
  ip netns exec "ipvs-node$1" "$lab" --router "router$1" 0.0.0.0 0 embedded "$routes" $api "$scale" 10.66.0.3:18080 "$tmp" \
    >"$tmp/router$1.out" &
  router[$1]=$!
}
# Since its start: one that is ready may write its configuration again at once.
says_ready() { grep -q READY "$tmp/router$1.out"; }
ready() { until_true 30 "router $1" says_ready "$1"; }
started() { start "$1" && ready "$1"; }
term() { kill -TERM "${router[$1]}"; }
ended() { ! kill -0 "${router[$1]}" 2>/dev/null; }
gone() { until_true 110 "the end of router $1" ended "$1"; }
replace() { # replace SECONDS-AFTERWARDS NODE
  term "$2" && gone "$2" && pause 5 && started "$2" && pause "$1"
}
haproxy_of() { sed -n 's/.* haproxy //p' "$tmp/router$1.out" | tail -n 1; }
kill_router() { # with its HAProxy, as the lab does
  kill -9 "$(haproxy_of "$1")" "${router[$1]}"
  wait "${router[$1]}" 2>/dev/null
}
# All routers anew with so many routes.
resize() {
  [[ $routes != "$1" ]] || return 0
  routes=$1
  each kill_router
  each start
  each ready
}

### Switches ###################################################################
declare -i switches=0
declare -a names=() servers=() daemon=()
# place NAME: the namespace of another switch, with the ways to its clients and to its
# addresses.
place() {
  switches+=1
  names[switches]=$1 servers[switches]=0
  join s$switches 10.66.0.$((100 + switches))
  ip -n ipvs-s$switches route add local 10.$((200 + switches)).0.0/24 dev lo
  ip -n ipvs-s$switches route add 10.$((100 + switches)).0.0/24 via 10.66.0.2
  ip -n ipvs-client route replace 10.$((200 + switches)).0.0/24 via 10.66.0.$((100 + switches))
}
# switch NAME WORDS CHECK...: another switch, with an address for each check, and rr and
# direct routing unless WORDS, with commas, say otherwise. A name=value is a sysctl of
# net.ipv4.vs; "removal" is the opposite of inhibit_on_failure.
switch() {
  local node word check vip=0 method=DR scheduler=rr virtual='' server='' kind
  place "$1"
  settings s$switches net.ipv4.ip_forward=1
  inside s$switches ipvsadm --set "$(whole 900)" "$(whole 120)" "$(whole 300)"
  for word in ${2//,/ }; do
    case $word in
      *=*) settings s$switches net.ipv4.vs."$word" ;;
      sh) scheduler='sh' ;;
      persistence) virtual+=" persistence_timeout $(whole 300)"$'\n' ;;
      sorry_server) virtual+=$' sorry_server 10.66.0.11 443\n' ;;
      inhibit_on_failure) server=$word ;;
      removal) ;;
      NAT) # the way back is through the switch
        method=NAT
        for node in 1 2 3; do ip -n ipvs-node$node route add 10.$((100 + switches)).0.0/24 via 10.66.0.$((100 + switches)); done ;;
      *) virtual+=" $word"$'\n' ;;
    esac
  done
  {
    printf 'global_defs {\n script_user root\n enable_script_security\n}\n'
    for check in "${@:3}"; do
      vip=$((vip + 1))
      kind="TCP_CHECK {
   connect_port $check"
      [[ $check != HTTP ]] || kind='HTTP_GET {
   connect_port 1936
   url { path /healthz/ready
    status_code 200 }'
      printf 'virtual_server %s 443 {\n delay_loop %s\n lvs_method %s\n lvs_sched %s\n protocol TCP\n alpha\n%s' \
        10.$((200 + switches)).0.$vip "$(real 2)" $method $scheduler "$virtual"
      for node in 1 2 3; do
        printf ' real_server 10.66.0.1%s 443 {\n%s\n  %s\n   connect_timeout %s\n   retry 1\n   delay_before_retry %s\n  }\n }\n' \
          $node "$server" "$kind" "$(real 2)" "$(real 2)"
      done
      echo "}"
    done
  } >"$tmp/s$switches.conf"
  servers[switches]=$((3 * vip))
  balance s$switches check
}
balance() { # balance NAMESPACE check|vrrp: keepalived with its configuration there
  ip netns exec "ipvs-$1" keepalived "--$2" --dont-fork --log-console --log-detail --use-file "$tmp/$1.conf" \
    --pid "$tmp/$1.pid" "--${2/check/checkers}_pid" "$tmp/$1.$2.pid" >"$tmp/$1.log" 2>&1 &
  daemon+=($!)
}
# proxy NAME LINES: HAProxy in the place of IPVS, at layer 4, without a second try.
proxy() {
  place "$1"
  cat >"$tmp/s$switches.conf" <<HAPROXY
defaults
  mode tcp
  retries 0
  timeout connect $(ms 5000)
  timeout client 1m
  timeout server 1m
listen virtual
  bind 10.$((200 + switches)).0.1:443
  option tcp-check
  tcp-check connect linger
  default-server inter $(ms 2000) rise 1 fall 2
  server node1 10.66.0.11:443 check port 18898
  server node2 10.66.0.12:443 check port 18898
  server node3 10.66.0.13:443 check port 18898
$2
HAPROXY
  ip netns exec ipvs-s$switches haproxy -q -db -f "$tmp/s$switches.conf" &
  daemon+=($!)
}
settled() { (($(inside "s$1" ipvsadm -Ln | awk '/->.*:443/ { n += $4 == 1 } END { print n + 0 }') == servers[$1])); }
# All servers of all switches are in use, and all VRRP addresses on node1.
addresses=()
settle() {
  local number
  for number in "${addresses[@]}"; do until_true 60 "VRRP address $number on node1" home "$number"; done
  for number in "${!names[@]}"; do until_true 60 "switch ${names[number]}" settled "$number"; done
}
# Nothing of the last experiment is left but the network and the nodes.
no_switches() {
  local number node
  kill "${daemon[@]}" && wait "${daemon[@]}" 2>/dev/null
  for number in "${!names[@]}"; do
    ip netns delete "ipvs-s$number"
    for node in 1 2 3; do ip -n ipvs-node$node route del 10.$((100 + number)).0.0/24; done
  done 2>/dev/null
  switches=0 names=() servers=() daemon=()
}

### Load #######################################################################
# share LINES: how many connections a second each line gets, of 100, which is what a
# VM with one emulated core can do; clients with few source ports take them all
# within 30 s of production.
share() { rate=$((100 / $1)) few=$(whole $((30 * (100 / $1)))); }
lines() { # lines NAME NUMBER ADDRESS [DOWNLOADS SECONDS]: both loads for an address of a switch
  echo "$1,many 10.$((100 + $2)).0 10.$((200 + $2)).0.$3:443 0 ${*:4}"
  echo "$1,few 10.$((100 + $2)).0 10.$((200 + $2)).0.$3:443 $few"
}
mark() {
  kill -USR1 "$loader" && marked=$(date +%s.%N)
  [[ ! -e $tmp/s1.log ]] || logged=$(wc -l <"$tmp/s1.log")
}
# taken_out ADDRESS: how often a server was taken out of this address of the first
# switch since the mark, by keepalived's log.
taken_out() { tail -n "+$((logged + 1))" "$tmp/s1.log" | grep -cE "(Disabling|Removing) service .*10\.201\.0\.$1\]"; }
idle() { awk '/^cpu / { print $5 + $6, $2 + $3 + $4 + $5 + $6 + $7 + $8 + $9 }' /proc/stat; }
# happen EXPERIMENT EVENT: the event, under the load of what is in $tmp/lines.
happen() {
  local before loader
  resize "$([[ $2 = reload ]] && echo 10000 || echo 22)"
  settle
  if [[ $2 = start ]]; then # a router that is not there, and every switch knows
    kill_router 1
    pause 15
  fi
  rm -f "$tmp/counts"
  ip netns exec ipvs-client python3 "$here/ipvs/load.py" "$rate" "${limit:-$(real 5)}" <"$tmp/lines" >"$tmp/counts" &
  loader=$!
  until_true 20 "the load" test -s "$tmp/counts"
  before=$(idle)
  pause 30 # the few source ports have come round
  kill -USR2 "$loader"
  pause 5
  "event_$2"
  echo "# $1 $2: $(echo "$before $(idle)" | awk '{ print int(100 * ($3 - $1) / ($4 - $2)) }') % of the CPU idle"
  kill -TERM "$loader" && wait "$loader"
  sed -e 1d -e "s/^/$1 $2 /" "$tmp/counts" | tee -a "$tmp/results" >&2
  ended 1 && started 1
}
# Of a line of that load: get FIELD EXPERIMENT EVENT NAME
get() { awk -F '\t' -v row="${*:2}" -v field="$1" '$1 == row { print $field }' "$tmp/results"; }
lost() { get 2 "$@"; }
cell() { get 3 "$@"; }
row() { printf '| %s ' "$@" && echo "|"; } >>"$tmp/table"

### What happens ###############################################################
declare -A event_name=([start]="start, the API takes 8 s" [crash]="kill -9" [hung]="hung HAProxy, 40 s"
  [drain]="drain, idle" [busy]="drain, busy" [reload]="reloads, 10,000 routes, 60 s" [rolling]="rolling update")
event_start() { mark; api=8; started 1; api=0; pause 15; }
event_crash() { mark; kill_router 1; pause 25; }
event_hung() { mark; kill -STOP "$(haproxy_of 1)"; pause 40; kill -CONT "$(haproxy_of 1)"; pause 15; }
event_drain() { mark; replace 15 1; }
event_busy() {
  # One download, longer than that, keeps its HAProxy for all the time it is given.
  inside node1 curl -s -o /dev/null -H "Host: hello.lab" http://127.0.0.1/slow/120 &
  event_drain
}
event_all() { mark; each term; each gone; pause 5; each start; each ready; pause 20; }
event_reload() {
  mark
  for _ in {1..60}; do
    kill -HUP "${router[@]}"
    pause 1
  done
}
event_rolling() { mark; each replace 30; }

### Experiments ################################################################
# Every check, on a switch with what we recommend and on one without. Each event has
# new switches: a client with few source ports stays for minutes where it was.
declare -A check_name=([443]="TCP on 443" [1936]="TCP on 1936" [HTTP]="HTTP_GET on 1936" [18898]="TCP on healthport")
checks() { # checks EVENT...
  local event check vip ports first
  row Event Check "All set: many ports" "few ports" "None set: many ports" "few ports"
  row --- --- ---: ---: ---: ---:
  share 16
  for event in "$@"; do
    switch set inhibit_on_failure,expire_nodest_conn=1,conn_reuse_mode=3 443 1936 HTTP 18898
    switch not-set conn_reuse_mode=1 443 1936 HTTP 18898
    vip=0
    for check in 443 1936 HTTP 18898; do
      vip=$((vip + 1))
      lines set/$check 1 $vip
      lines not-set/$check 2 $vip
    done >"$tmp/lines"
    happen checks "$event"
    lost_by() { lost checks "$event" "$1"; }
    for ports in many few; do
      check=set/18898,$ports
      case $event in
        # Of a sudden death healthport knows 1.1 s later than who connects to 443.
        crash) finding "$event, $check: lost, against TCP on 443 and 2 s more" "$(lost_by "$check")" "<=$(($(lost_by set/443,$ports) + rate))" ;;
        hung) finding "$event, $check: lost, against TCP on 443" "$(lost_by "$check")" "<$(lost_by set/443,$ports)" ;;
        *) finding "$event, $check: lost" "$(lost_by "$check")" ==0 ;;
      esac
    done
    case $event in
      drain | busy | rolling)
        finding "$event: servers taken out by the check on healthport" "$(taken_out 4)" ">0"
        for check in set/{443,1936},many not-set/18898,few; do finding "$event, $check: lost" "$(lost_by "$check")" ">0"; done ;;
      start) finding "$event, set/1936,many: lost" "$(lost_by set/1936,many)" ">0" ;;
      reload) finding "$event: servers taken out by the check on healthport" "$(taken_out 4)" ==0 ;;
    esac
    first=${event_name[$event]}
    for check in 443 1936 HTTP 18898; do
      row "$first" "${check_name[$check]}" "$(cell checks "$event" set/$check,many)" "$(cell checks "$event" set/$check,few)" \
        "$(cell checks "$event" not-set/$check,many)" "$(cell checks "$event" not-set/$check,few)"
      first=''
    done
    no_switches
  done
}

# Switches that differ in one thing, all with the check on healthport: what a recipe
# says, and what happens without it. What a drain costs with many ports and with few, and
# the downloads that end well, of six; and the words of `switch`.
policies_table='- >0 ==6 inhibit_on_failure,conn_reuse_mode=1
==0 ==0 ==6 inhibit_on_failure,conn_reuse_mode=3
==0 ==0 ==6 inhibit_on_failure,expire_nodest_conn=1,conn_reuse_mode=1
==0 ==0 ==6 inhibit_on_failure,expire_nodest_conn=1,conn_reuse_mode=3
==0 ==0 ==6 NAT,inhibit_on_failure,conn_reuse_mode=1
- - <6 removal,conn_reuse_mode=3
>0 - - sh,inhibit_on_failure,conn_reuse_mode=3
==0 ==0 ==6 sh,sh-fallback,inhibit_on_failure,conn_reuse_mode=3
>0 - - sh,persistence,inhibit_on_failure,conn_reuse_mode=3
==0 ==0 ==6 persistence,inhibit_on_failure,expire_quiescent_template=1,expire_nodest_conn=1,conn_reuse_mode=3'
# Six downloads for each, two on each node, that begin 5 s before the event and take
# 60 s: the router lets them end 55 s after it is told to stop.
policies() { # policies EVENT...
  local event number words expected cells=()
  for event in "$@"; do
    while read -r _ _ _ words; do switch "$words" "$words" 18898; done <<<"$policies_table"
    share $((2 * switches))
    for number in "${!names[@]}"; do lines "${names[number]}" "$number" 1 6 "$(real 60)"; done >"$tmp/lines"
    happen policies "$event"
    no_switches
    cells+=("${event_name[$event]}: many ports" "few ports")
  done
  row Switch "${cells[@]}" "${event_name[$1]}: downloads that ended well"
  row --- "${cells[@]/*/---:}" ---:
  while read -r -a expected; do
    words=${expected[3]} cells=()
    for event in "$@"; do cells+=("$(cell policies "$event" "$words,many")" "$(cell policies "$event" "$words,few")"); done
    row "$(sed 's/,/, /g; s/\(expire[a-z_]*\)=1/\1/g; s/=/ /g' <<<"$words")" "${cells[@]}" "$(get 6 policies "$1" "$words,many") of 6"
    [[ $* = *drain* ]] || continue
    [[ ${expected[0]} = - ]] || finding "$words, many ports: lost" "$(lost policies drain "$words,many")" "${expected[0]}"
    [[ ${expected[1]} = - ]] || finding "$words, few ports: lost" "$(lost policies drain "$words,few")" "${expected[1]}"
    [[ ${expected[2]} = - ]] || finding "$words: downloads" "$(get 6 policies drain "$words,many")" "${expected[2]}"
  done <<<"$policies_table"
}

# Every router is told to stop at the same moment.
seconds() { awk "BEGIN { printf \"%.0f\", $(get "$1" closed all "$2,many") / $scale }"; } # of production: seconds FIELD NUMBER
closed() {
  local number
  switch "IPVS, TCP on 443, inhibit_on_failure" inhibit_on_failure,conn_reuse_mode=3 443
  switch "IPVS, inhibit_on_failure" inhibit_on_failure,conn_reuse_mode=3 18898
  switch "IPVS, inhibit_on_failure, sorry_server node1" inhibit_on_failure,sorry_server,conn_reuse_mode=3 18898
  switch "IPVS, removal, sorry_server node1" removal,sorry_server,conn_reuse_mode=3 18898
  proxy "HAProxy" ""
  proxy "HAProxy, backup without a check, allbackups" "  option allbackups
  server open1 10.66.0.11:443 backup
  server open2 10.66.0.12:443 backup
  server open3 10.66.0.13:443 backup"
  share $switches
  for number in "${!names[@]}"; do lines "$number" "$number" 1 | grep many; done >"$tmp/lines"
  happen closed all
  row Switch Lost "the first, the last, after SIGTERM"
  row --- ---: ---:
  for number in "${!names[@]}"; do
    row "${names[number]}" "$(cell closed all "$number,many")" "$(seconds 4 "$number") s, $(seconds 5 "$number") s"
  done
  no_switches
  finding "all at once, with a sorry_server: lost, against without" "$(lost closed all 3,many)" "<$(lost closed all 2,many)"
  finding "HAProxy with backups: lost, against without" "$(lost closed all 6,many)" "<$(lost closed all 5,many)"
}

# VRRP between node1 and node2, each with its router: the address goes where
# healthport --once says 0. keepalived kills the script after 4 s.
vrrp_scripts=("interval 2, no weight" "interval 2, weight -60" "interval 1, no weight" "interval 1, weight -60"
  "interval 1, no weight, --timeout 900ms")
vrrp() { # vrrp EVENT...
  local number node event first limit=5 # its times are whole seconds
  local interval weight option script
  for node in 1 2; do
    {
      printf 'global_defs {\n  script_user root\n  enable_script_security\n}\n'
      for number in "${!vrrp_scripts[@]}"; do
        IFS=, read -r interval weight option <<<"${vrrp_scripts[number]}"
        cat <<CONF
vrrp_script ready$number {
  script "$healthport --once ${option:---timeout 3s}"
  $interval
  timeout 4
  rise 1
  fall 2
  ${weight#*no weight}
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
    } >"$tmp/node$node.conf"
    balance node$node vrrp
  done
  row Event vrrp_script "Address moved after" times Lost
  row --- --- ---: ---: ---:
  share 10
  addresses=("${!vrrp_scripts[@]}")
  for number in "${addresses[@]}"; do echo "$number,many 10.101.0 10.66.0.$((200 + number)):443 0"; done >"$tmp/lines"
  ip -n ipvs-node2 -ts monitor address >"$tmp/moves" &
  daemon+=($!)
  for event in "$@"; do
    happen vrrp "$event"
    first=${event_name[$event]}
    for number in "${addresses[@]}"; do
      script=${vrrp_scripts[number]}
      moves "$number"
      row "$first" "$script" "$moved" "$times" "$(cell vrrp "$event" "$number,many")"
      first=''
      case $event in
        drain) finding "VRRP, $script, drain: lost" "$(lost vrrp drain "$number,many")" "<=3" ;;
        hung) finding "VRRP, $script, hung: moves" "$times" "<=1" ;;
      esac
    done
  done
  addresses=()
  no_switches
}
home() { ip -n ipvs-node1 -o address show to 10.66.0.$((200 + $1)) | grep -q .; }
# moves NUMBER: when after the mark the address came to node2 first ($moved), and how often ($times).
moves() {
  local at
  moved=- times=0
  while read -r at; do
    at=$(awk "BEGIN { printf \"%.1f\", $(date -d "$at" +%s.%N) - $marked }")
    [[ $at = -* ]] || ((times++)) || moved="$at s"
  done < <(grep -v Deleted "$tmp/moves" | sed -n "s/^\[\([^]]*\)\].* 10.66.0.$((200 + $1))\/32 .*/\1/p")
}

echo "# tests/lab/ipvs.sh --scale $scale ${*:-}"
echo "# $(date +%F), Linux $(uname -r), $(keepalived --version 2>&1 | head -n 1 | cut -d ' ' -f 1-2), $(haproxy -v | head -n 1 | cut -d ' ' -f 1-3)"
echo "# $(nproc) CPU ($(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)), $(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo) MiB"
network
hello
each start
each ready
for experiment in checks policies closed vrrp; do
  events=()
  for cell in "${all[@]}"; do
    [[ $cell != "$experiment":* || ($# -gt 0 && " $* " != *" $cell "* && " $* " != *" $experiment "*) ]] || events+=("${cell#*:}")
  done
  ((${#events[@]} == 0)) && continue
  : >"$tmp/table"
  "$experiment" "${events[@]}"
  echo && cat "$tmp/table" && echo
done
echo "# $good ok, $bad not ok, $SECONDS s"
((bad == 0))
