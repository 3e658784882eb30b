# Call 2, is it fast? Step and inference compared with torchvision, the profile, the loss compared with a copy, the loader.
. benchmarks/gpu/common.sh
if [ "$SMALL" = 1 ]; then SIZE="128 160" B=2 KIND="--quick --device cpu"; else SIZE="800 1344" B=16 KIND="--device cuda"; fi
bench() {  # bench NAME SECONDS LINES ARGUMENT...: benchmarks/run.py with a JSON file of that name
  local name=$1 limit=$2 lines=$3; shift 3
  step "$name" "$limit" "$lines" $PY benchmarks/run.py "$@" $KIND --no-memory --batch $B --json "$OUT/$name.json"
}
step facts 40 99 $PY -m benchmarks.gpu.facts $DEVICE
bench train 240 40 train --size $SIZE --repeats 3
bench train-compiled 110 12 train --size $SIZE --repeats 3 --compile --only ours
bench profile 45 40 profile --size $SIZE
bench infer 80 25 infer --size $SIZE --repeats 5
bench kernels 45 40 loss assign postprocess --repeats 5
bench feed 45 12 feed --size $SIZE --repeats 3
finish
