# From the project's root, with a network: bash benchmarks/gpu/prepare.sh DATA_FOLDER
# Copies data, and wheels that the GPU machine may lack, into .gpu, which git ignores.
# WITH_FOD=0 leaves out the runway objects, WITH_COCO=1 adds the COCO excerpt.
set -eu
[ $# = 1 ] || { echo "usage: bash benchmarks/gpu/prepare.sh DATA_FOLDER"; exit 2; }
DATA=$1 PY=${PY:-python3} PYTHON_VERSION=${PYTHON_VERSION:-3.12}
rm -rf .gpu; mkdir -p .gpu/data/bccd .gpu/whl
cp -r "$DATA"/bccd/annotations "$DATA"/bccd/images .gpu/data/bccd/
cp -r "$DATA"/weights .gpu/data/
[ "${WITH_FOD:-1}" = 0 ] || cp -r "$DATA"/fod .gpu/data/
[ "${WITH_COCO:-0}" = 0 ] || cp -r "$DATA"/coco144 .gpu/data/
chmod -R u+w .gpu
download() {
  $PY -m pip download -q --disable-pip-version-check --only-binary=:all: --python-version "$PYTHON_VERSION" --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 --platform manylinux1_x86_64 -d .gpu/whl "$@"
}
# The releases of requirements.txt. pydantic brings its own requirements; those of the others come with torch.
download $(grep -E '^pydantic==' requirements.txt)
download --no-deps $(grep -E '^(pycocotools|defusedxml|hotcoco)==' requirements.txt)
ls .gpu/whl; du -sh .gpu
