#!/bin/sh
# What an operator would write instead: curl in a loop, socat as the port.
# usage: sh loop.sh URL SECONDS ADDRESS PORT
while kill -0 $PPID; do # ends with the bench
  if curl --silent --fail --max-time 0.5 --noproxy '*' --output /dev/null "$1"; then
    [ "$pid" ] || { socat -u OPEN:/dev/null "TCP-LISTEN:$4,bind=$3,reuseaddr,fork" & pid=$!; }
  else
    [ -z "$pid" ] || { kill "$pid"; wait "$pid"; pid=; }
  fi
  sleep "$2"
done
[ -z "$pid" ] || kill "$pid"
