# Call 3, the study: four class losses, five seeds, blood cells with ImageNet MobileNetV2; JOBS trainings at once on one GPU.
# Every training is a process of its own on the same GPU.
# SIGINT ends it before the limit: what is finished is reported, what runs is saved, and RESUME=1 continues.
. benchmarks/gpu/common.sh
if [ "$SMALL" = 1 ]; then
  JOBS=2 STUDY=$HERE/study_small.yaml EXTRA="data.canvas=[64,96] schedule.warmup=1 log.every=1"
else
  JOBS=${JOBS:-8} STUDY=${STUDY:-$HERE/study_bccd.yaml} EXTRA=""
fi
KEYS="data.root=$STUDY_DATA model.backbone.weights=$WEIGHTS device=$DEVICE output=$WORK/study $EXTRA"
if [ "${RESUME:-0}" = 1 ]; then FLAG=--resume; else FLAG=--overwrite; fi
step facts 40 99 $PY -m benchmarks.gpu.facts $DEVICE
nvidia-smi dmon -c 500 -d 5 > "$OUT/dmon.txt" 2>&1 & DMON=$!
MOST=$(( $(left) - 70 ))
step study $MOST 30 timeout -s INT -k 30 $(( MOST - 35 )) $PY -m retinanet ablate $STUDY $KEYS --jobs $JOBS $FLAG
kill $DMON 2>/dev/null
step report 60 1 $PY -m retinanet ablate $STUDY $KEYS --report
for file in report.md report.html; do [ -f $WORK/study/$file ] && cp $WORK/study/$file "$OUT/"; done
tar czf "$OUT/cells.tar.gz" -C $WORK/study --exclude=checkpoints --exclude=tensorboard --exclude=pictures . 2>/dev/null
head -60 $WORK/study/report.md 2>/dev/null
finish
