# Call 1, is it right? CPU against GPU, resuming to the bit, precisions, every class loss; then what a step's switches cost.
. benchmarks/gpu/common.sh
step facts 60 99 $PY -m benchmarks.gpu.facts $DEVICE
step numerics 150 99 $PY -m benchmarks.gpu.numerics $DEVICE
if [ "$SMALL" = 1 ]; then COUNTS="--train 24 --val 8 --size 64 64"; else COUNTS="--train 2000 --val 200 --size 256 256"; fi
step shapes 60 1 $PY -m retinanet data shapes --output $WORK/shapes $COUNTS
RUN="configs/quickstart.yaml data.root=$WORK/shapes device=$DEVICE data.workers=6"
if [ "$SMALL" = 1 ]; then
  RUN="$RUN data.workers=0 data.canvas=[64,64] schedule.iterations=6 schedule.warmup=2 log.every=1 log.save_every=2 eval.score_threshold=0.0"
fi
step quickstart 90 15 $PY -m retinanet train $RUN output=$WORK/quickstart --overwrite
step quickstart-eval 40 15 $PY -m retinanet eval $WORK/quickstart/checkpoints/best.pt --output $WORK/quickstart-eval
step resume 170 20 $PY -m benchmarks.gpu.resume $DEVICE $WORK/shapes $WORK/resume
step losses 120 40 $PY -m benchmarks.gpu.losses $DEVICE $WORK/shapes $WORK/losses
step cuda-tests 150 3 $PY -m pytest -q -p no:cacheprovider tests/losses/test_modules.py tests/gpu
step switches 110 20 $PY -m benchmarks.gpu.switches $DEVICE "$OUT/switches.json"
finish
