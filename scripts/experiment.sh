# Sourced by the scripts of experiments: one run, trained and evaluated. CALD_DTYPE and CALD_THREADS are those of every
# run (f32, all processors). The script sets
#   at        the folder of its runs
#   train     the flags of each training, an array
#   table     the file that each run is evaluated on, for the table alone: FILE.tsv's result is RUN/FILE.json
#   evaluate  the flags of each evaluation, an array

common=(--dtype "${CALD_DTYPE:-f32}" --threads "${CALD_THREADS:-0}")

# run NAME COMMAND FLAGS...     into $at/NAME; what is finished is not run again, what was interrupted goes on
run() {
  local out=$at/$1 result
  result=$out/$(basename "$table" .tsv).json
  shift
  [ -e "$result" ] && return
  echo "== $out"
  build/cald "$@" "${train[@]}" "${common[@]}" --output "$out" --resume
  build/cald evaluate "$out/model" "$table" "${evaluate[@]}" "${common[@]}" --json "$result"
}
