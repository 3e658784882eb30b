# Sourced by call1.sh, call2.sh and call3.sh, which run from the project's root.
# SMALL=1 rehearses them on a CPU with tiny sizes, to see that every command still works.
set -u
HERE=benchmarks/gpu
FILES=${FILES:-.gpu}                   # what prepare.sh copied: data/ and whl/
OUT=${OUT:-$FILES/out}; mkdir -p "$OUT"
WORK=build/gpu                         # data sets and runs made on the way
SMALL=${SMALL:-0}
PY=${PY:-python3}
BUDGET=${BUDGET:-560}                  # seconds after which no step of this call runs any more
STUDY_DATA=${STUDY_DATA:-$FILES/data/bccd}
WEIGHTS=${WEIGHTS:-$FILES/data/weights/mobilenet_v2_imagenet_features.pth}
if [ "$SMALL" = 1 ]; then DEVICE=cpu; else DEVICE=cuda; fi
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD"
if [ -d "$FILES/whl" ] && [ "$SMALL" = 0 ]; then
  SITE=$(mktemp -d)
  $PY -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$SITE" "$FILES"/whl/*.whl || exit 3
  export PYTHONPATH="$PWD:$SITE"
fi
START=$(date +%s)
left() { echo $(( BUDGET - ( $(date +%s) - START ) )); }
TABLE="$OUT/table.txt"; : > "$TABLE"
FAILED=0
# step NAME SECONDS LINES COMMAND...: run under a time limit, never end the call; keep the log, show its last LINES
# lines and one line of the outcome.
step() {
  local name=$1 limit=$2 lines=$3 begun rc most; shift 3
  [ "$SMALL" = 1 ] && limit=$(( limit * 10 ))  # a CPU that others use, too
  most=$(left); [ "$most" -lt 15 ] && { echo "SKIP $name: no time left" | tee -a "$TABLE"; FAILED=1; return 0; }
  [ "$limit" -gt "$most" ] && limit=$most
  begun=$(date +%s)
  timeout -k 5 "$limit" "$@" > "$OUT/$name.log" 2>&1; rc=$?
  tail -n "$(( rc == 0 ? lines : lines > 12 ? lines : 12 ))" "$OUT/$name.log"
  printf '%-4s %-34s %4d s  rc %d\n' "$([ $rc = 0 ] && echo ok || echo FAIL)" "$name" $(( $(date +%s) - begun )) $rc | tee -a "$TABLE"
  [ $rc = 0 ] || FAILED=1
}
# The logs in one archive next to the JSON files, the table once more; fails if any step has.
finish() {
  (cd "$OUT" && tar czf logs.tar.gz --exclude='*.json' --exclude='*.tar.gz' -- * && rm -f -- *.log)
  echo; cat "$TABLE"
  exit $FAILED
}
