# Steps of a script, to be sourced: one line for each on stderr, with how far it is and how long it took. What a step prints goes
# to a log; when it fails, the end of the log is shown.

steps_begin() { # LOG NAME_OF_THE_SCRIPT
  steps_log=$1
  steps_name=$2
  steps_start=$(date +%s)
  steps_child=""
  mkdir -p "$(dirname "$steps_log")"
  : >"$steps_log"
  steps_tty=false
  [ -t 2 ] && steps_tty=true
  # A child in the background does not hear Ctrl-C.
  trap 'steps_stop 130' INT
  trap 'steps_stop 143' TERM
}

steps_stop() { # EXIT_CODE
  [ -z "$steps_child" ] || kill "$steps_child" 2>/dev/null || true
  printf '\n%s: interrupted; what is done stays done\n' "$steps_name" >&2
  exit "$1"
}

steps_seconds() { echo $(($(date +%s) - $1)); }

# How far the running step is, from what it printed last: ninja's "[12/190]", else the last line.
steps_progress() { # FIRST_BYTE
  tail -c "+$1" "$steps_log" | tail -n 1 | tr '\r\t' '  ' | sed 's|^\[\([0-9]*\)/\([0-9]*\)\].*|\1 of \2|' | cut -c1-60
}

# COMMAND is a program that ends what it started when it is told to end; no function, whose children would live on.
step() { # TITLE COMMAND...
  step_title=$1
  shift
  step_start=$(date +%s)
  step_last=$step_start
  printf '\n$ %s\n' "$*" >>"$steps_log"
  step_mark=$(($(wc -c <"$steps_log") + 1))
  "$@" >>"$steps_log" 2>&1 </dev/null &
  steps_child=$!
  $steps_tty || printf '%-20s ...\n' "$step_title" >&2
  while kill -0 "$steps_child" 2>/dev/null; do
    sleep 0.5
    step_now=$(date +%s)
    if $steps_tty; then
      printf '\r\033[K%-20s %s s  %s' "$step_title" "$((step_now - step_start))" "$(steps_progress "$step_mark")" >&2
    elif [ $((step_now - step_last)) -ge 60 ]; then
      step_last=$step_now
      printf '%-20s %s s  %s\n' "$step_title" "$((step_now - step_start))" "$(steps_progress "$step_mark")" >&2
    fi
  done
  step_status=0
  wait "$steps_child" || step_status=$?
  steps_child=""
  ! $steps_tty || printf '\r\033[K' >&2
  if [ "$step_status" != 0 ]; then
    printf '%-20s failed after %s s (exit %s):\n' "$step_title" "$(steps_seconds "$step_start")" "$step_status" >&2
    tail -c "+$step_mark" "$steps_log" | tail -n 25 | sed 's/^/    /' >&2
    echo "$steps_name: the step \"$step_title\" failed; all that it printed: $steps_log" >&2
    exit "$step_status"
  fi
  printf '%-20s done, %s s\n' "$step_title" "$(steps_seconds "$step_start")" >&2
}

steps_end() {
  trap - INT TERM
  printf '%-20s %s s\n' "all of it" "$(steps_seconds "$steps_start")" >&2
}
